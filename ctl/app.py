"""What every verb is given: where the daemon is, and what to print to."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from ctl.blocks import Block, harmless
from ctl.plain import plain
from daemon.wire.errors import Fault

if TYPE_CHECKING:
    from daemon.wire.paths import Home

CLIENT: Final = "mlxctl"
"""Who asks, as the event log names it."""

INTERRUPTED_EXIT: Final = 130
"""128 + SIGINT, as shells count Ctrl-C."""


class App:
    """One run of mlxctl: its streams, its environment, its output format.

    Attributes:
        environ: The process's environment.
        as_json: Whether ``--json`` was given: stdout then holds documented JSON only.
    """

    def __init__(self, environ: Mapping[str, str], out: TextIO, err: TextIO) -> None:
        self.environ = environ
        self.as_json = False
        self._out = out
        self._err = err

    @cached_property
    def home(self) -> "Home":
        """The places of this installation.

        Raises:
            MlxdError: ``invalid_request`` if the environment names no usable place.
        """
        import sys  # noqa: PLC0415

        from daemon.wire.paths import find_home  # noqa: PLC0415

        return find_home(self.environ, sys.platform)

    @property
    def socket(self) -> str:
        """The daemon's control socket.

        Raises:
            MlxdError: ``invalid_request`` if the environment names no usable place.
        """
        return str(self.home.control_socket)

    @cached_property
    def out_is_terminal(self) -> bool:
        return self._is_terminal(self._out)

    @cached_property
    def err_is_terminal(self) -> bool:
        return self._is_terminal(self._err)

    @property
    def width(self) -> int | None:
        """Columns of the terminal that stdout is; None where it is none."""
        if not self.out_is_terminal:
            return None
        import shutil  # noqa: PLC0415

        return shutil.get_terminal_size().columns

    @property
    def out(self) -> TextIO:
        return self._out

    @property
    def err(self) -> TextIO:
        return self._err

    def show(self, *blocks: Block) -> None:
        """Print a page for people: drawn on a terminal, aligned text elsewhere."""
        if not self.out_is_terminal:
            self._out.write(plain(blocks))
            self._out.flush()
            return
        from ctl.pretty import console, draw  # noqa: PLC0415

        draw(console(self._out, self.environ), blocks)

    def show_json(self, shape: Mapping[str, Any]) -> None:
        """Print one JSON object on a line of its own."""
        self.write(_as_json(shape) + "\n")

    def write(self, text: str) -> None:
        """Print exactly ``text``, at once; on a terminal control codes are made harmless."""
        self._out.write(harmless(text) if self.out_is_terminal else text)
        self._out.flush()

    def note(self, text: str) -> None:
        """A remark beside the output, on stderr."""
        self._err.write((harmless(text) if self.err_is_terminal else text) + "\n")
        self._err.flush()

    def note_dim(self, text: str) -> None:
        """Part of a remark that nobody misses, on stderr if somebody is looking there."""
        if self.err_is_terminal:
            plain_text = harmless(text)
            colour = not self.environ.get("NO_COLOR")
            self._err.write(f"\x1b[2m{plain_text}\x1b[0m" if colour else plain_text)
            self._err.flush()

    def fail(self, fault: Fault) -> None:
        """Report a failure on stderr: a sentence and the next step, or a JSON object."""
        if self.as_json:
            shape = {"v": 1, "error": msgspec.to_builtins(fault)}
            self.note(_as_json(shape))
            return
        self.note(f"mlxctl: {fault.message}")
        if fault.hint and fault.hint not in fault.message:
            self.note(f"  hint: {fault.hint}")

    def _is_terminal(self, stream: TextIO) -> bool:
        return stream.isatty() and self.environ.get("TERM") != "dumb"


def _as_json(shape: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(shape).decode()
    except UnicodeEncodeError:  # a name that is no text: "?" for what is none of it
        import json  # noqa: PLC0415

        text = json.dumps(msgspec.to_builtins(shape), ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="replace").decode()
