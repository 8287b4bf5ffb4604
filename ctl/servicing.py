"""How the service stands, as a page for people and as JSON. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ctl.blocks import Block, Cell, Column, Line, Page, Table
from launchd.service import PartState
from launchd.steps import Step, WriteFile, told

_COLUMNS: Final = (
    Column("PROGRAM"),
    Column("INSTALLED"),
    Column("ENABLED"),
    Column("LOADED"),
    Column("RUNNING"),
)


def state_page(manager: str, states: Sequence[PartState], unavailable: str | None) -> Page:
    """The four states of each program, and for what is wrong the next step."""
    blocks: list[Block] = [Table(_COLUMNS, [_row(state) for state in states])]
    if unavailable:
        blocks += [Line(), Line(f"{manager} cannot be asked: {unavailable}", "warn")]
    elif advice := [line for state in states for line in _advice(state)]:
        blocks += [Line(), *_once(advice)]
    return tuple(blocks)


def state_shape(
    manager: str, states: Sequence[PartState], unavailable: str | None
) -> dict[str, Any]:
    """The documented ``--json`` shape."""
    return {
        "v": 1,
        "manager": manager,
        "unavailable": unavailable,
        "programs": [msgspec.to_builtins(state) for state in states],
    }


def plan_page(steps: Sequence[Step]) -> Page:
    """What would be done, and after it the files that would be written."""
    blocks: list[Block] = [Line(told(step)) for step in steps] or [Line("nothing to do")]
    for step in steps:
        if isinstance(step, WriteFile):
            blocks += [Line(), Line(f"{step.path}:", "title")]
            blocks += [Line(line) for line in step.content.decode().splitlines()]
    return tuple(blocks)


def plan_shape(steps: Sequence[Step]) -> dict[str, Any]:
    """Likewise, as JSON."""
    files = {str(s.path): s.content.decode() for s in steps if isinstance(s, WriteFile)}
    return {"v": 1, "steps": [told(step) for step in steps], "files": files}


def _row(state: PartState) -> tuple[Cell, ...]:
    installed = state.installed and not state.current
    return (
        Cell(state.program),
        Cell("outdated", "warn") if installed else _yes(state.installed),
        _yes(state.enabled),
        _yes(state.loaded),
        Cell("no", "warn") if state.pid is None else Cell(f"pid {state.pid or '?'}", "good"),
    )


def _yes(holds: bool | None) -> Cell:
    if holds is None:
        return Cell("unknown", "dim")
    return Cell("yes", "good") if holds else Cell("no", "warn")


def _advice(state: PartState) -> Iterator[Line]:
    if not state.installed:
        yield Line("To install what is missing: mlxctl service install")
    elif not state.current:
        yield Line("The files are of other settings or another version: mlxctl service restart")
    if state.installed and state.enabled is False:
        yield Line(
            "What is not enabled does not start at login, also where it was switched off in "
            "System Settings (Login Items): mlxctl service enable"
        )
    if state.pid is not None and not state.loaded:
        yield Line(f"{state.program} runs outside of the service: mlxctl service start takes over")
    elif state.installed and not state.loaded:
        yield Line("What is not loaded is stopped until the next login: mlxctl service start")
    if state.loaded and state.pid is None:
        yield from _silence(state)


def _silence(state: PartState) -> Iterator[Line]:
    if not state.said:
        yield Line(f"{state.program} starts when somebody connects, or: mlxctl service restart")
        return
    yield Line(f"{state.program} could not start. The end of {state.boot_log}:", "bad")
    yield from (Line(f"  {line}", "dim") for line in state.said)
    yield Line("Mend what it says, then: mlxctl service restart; mlxctl config check may help")


def _once(lines: Sequence[Line]) -> list[Line]:
    return list(dict.fromkeys(lines))
