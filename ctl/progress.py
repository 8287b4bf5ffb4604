"""The progress of a load on stderr: a bar for people, JSON lines for programs, or nothing."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from ctl.app import App
from ctl.blocks import harmless
from ctl.shapes import progress_shape
from daemon.wire import control as c
from daemon.wire.units import format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from daemon.wire.client import OnProgress

Mode = Literal["auto", "bar", "json", "none"]
MODES: Final = ("auto", "bar", "json", "none")


@contextmanager
def shown_progress(app: App, mode: Mode = "auto") -> "Iterator[OnProgress]":
    """Show the progress of one load for the length of the block.

    Args:
        mode: "auto" draws a bar if stderr is a terminal and ``--json`` was not given.
    """
    if mode == "auto":
        mode = "bar" if app.err_is_terminal and not app.as_json else "none"
    if mode == "none":
        yield _ignore
    elif mode == "json":
        yield lambda step: app.note(msgspec.json.encode(progress_shape(step)).decode())
    else:
        with ExitStack() as stack:
            yield _Bar(app, stack).update


def _ignore(_step: c.Progress) -> None:
    """Nobody looks."""


class _Bar:
    """A bar that appears with the first step: most requests wait for no load at all."""

    def __init__(self, app: App, stack: ExitStack) -> None:
        self._app = app
        self._stack = stack
        self._shown: tuple[RichProgress, TaskID] | None = None

    def update(self, step: c.Progress) -> None:
        bar, task = self._shown or self._appear()
        bar.update(
            task,
            description=describe(step),
            # Without a total rich draws a pulse: honest while no byte has been read.
            total=step.total_bytes if step.done_bytes else None,
            completed=step.done_bytes,
            amount=describe_amount(step),
            ready_at_s=None if step.eta_ms is None else bar.get_time() + step.eta_ms / 1000,
        )

    def _appear(self) -> "tuple[RichProgress, TaskID]":
        from ctl.bar import make_bar  # noqa: PLC0415

        bar = self._stack.enter_context(make_bar(self._app.err, self._app.environ))
        self._shown = bar, bar.add_task("", total=None, amount="", ready_at_s=None)
        return self._shown


def describe(step: c.Progress) -> str:
    """What is going on, in words."""
    if step.phase == "queued":
        return f"{harmless(step.model)} waits for its turn"
    return f"loading {harmless(step.model)}"


def describe_amount(step: c.Progress) -> str:
    """How much has been read, once something has."""
    if not step.done_bytes:
        return ""
    return f"{format_bytes(step.done_bytes)} of {format_bytes(step.total_bytes)}"
