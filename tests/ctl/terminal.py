"""mlxctl on a pseudo-terminal that a test types on."""

import os
import pty
import re
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import Process

from tests.ctl.conftest import Ctl

_CODES = re.compile(r"\x1b(\[[0-9;?>=]*[A-Za-z]|[=>78()][0B]?)")
LEFT = "\x1b[?1049l"
"""The full screen is left."""
SHOWN = "\x1b[?25h"
"""The cursor is shown again."""


def without_codes(text: str) -> str:
    return _CODES.sub("", text)


class Terminal:
    """A terminal and the program on it.

    Attributes:
        text: Everything that has been shown, codes included.
    """

    def __init__(self, process: Process, fd: int, kept: int) -> None:
        self.process = process
        self.text = ""
        self._at = 0
        self._fd = fd
        self._kept = kept

    async def until(self, wanted: str) -> None:
        """Read until ``wanted`` is shown after what was waited for last; fail after 20 s."""
        with anyio.move_on_after(20):
            while (found := without_codes(self.text).find(wanted, self._at)) < 0:
                if not await self._read():
                    break
            else:
                self._at = found + len(wanted)
                return
        shown = without_codes(self.text)[self._at :]
        raise AssertionError(f"{wanted!r} is not in {shown[-3000:]!r}")

    async def end(self) -> int:
        """Read to the end; the exit code."""
        code: int | None = None

        async def wait() -> None:
            nonlocal code
            code = await self.process.wait()
            scope.cancel()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                scope = tasks.cancel_scope
                tasks.start_soon(wait)
                while await self._read():
                    pass
        os.set_blocking(self._fd, False)
        try:
            while rest := os.read(self._fd, 65536):
                self.text += rest.decode(errors="replace")
        except OSError:
            pass
        assert code is not None
        return code

    def type(self, keys: str | bytes) -> None:
        os.write(self._fd, keys if isinstance(keys, bytes) else keys.encode())

    async def interrupt(self) -> None:
        """Ctrl-C, once the program waits for something.

        Python looks for signals between two steps, and after a wait that one has ended: what
        comes between the last look and the wait is seen only when the next key comes.
        """
        with anyio.fail_after(20):
            while not _waits(self.process.pid):
                await anyio.lowlevel.checkpoint()
        self.type("\x03")

    def settings(self) -> list[Any]:
        """How the terminal is set: what a program must leave as it was."""
        return termios.tcgetattr(self._kept)

    async def _read(self) -> bool:
        await anyio.wait_readable(self._fd)
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:
            return False
        self.text += chunk.decode(errors="replace")
        return bool(chunk)


def _waits(pid: int) -> bool:
    """Whether a process sleeps; where that cannot be seen, it is taken to."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text("ascii").rpartition(")")[2].split()[0] == "S"


@asynccontextmanager
async def open_terminal(
    mlxctl: Ctl, *arguments: str, columns: int = 100, lines: int = 30
) -> AsyncIterator[Terminal]:
    """Run mlxctl with all three streams on a terminal that it may control, Ctrl-C included."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (lines, columns))
    environ = mlxctl.environ(TERM="xterm-256color")
    del environ["COLUMNS"]
    process = await anyio.open_process(
        # A session of its own, whose terminal it becomes: Ctrl-C is then a signal.
        ["setsid", "--ctty", *mlxctl.argv(*arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=mlxctl.home,
        env=environ,
    )
    async with process:
        try:
            yield Terminal(process, ours, theirs)
        finally:
            if process.returncode is None:
                process.kill()
            os.close(ours)
            os.close(theirs)
