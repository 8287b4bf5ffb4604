"""Keeping the machine from falling asleep while requests run. The screen may go dark."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Self

import structlog

END_S: Final = 2.0

_log = structlog.get_logger("awake")


def awake_command(
    platform: str, pid: int, which: Callable[[str], str | None] = shutil.which
) -> tuple[str, ...] | None:
    """A program that keeps the machine awake for as long as it and process ``pid`` run.

    ``caffeinate`` (macOS) or ``systemd-inhibit`` (Linux with logind). Both watch ``pid``, so
    that a killed daemon leaves no machine behind that never sleeps.

    Returns:
        None where there is no such program.
    """
    if platform == "darwin":
        caffeinate = which("caffeinate")
        return (caffeinate, "-i", "-w", str(pid)) if caffeinate else None
    found, tail = which("systemd-inhibit"), which("tail")
    if not found or not tail:
        return None
    why = ("--what=sleep:idle", "--mode=block", "--who=mlxd", "--why=requests are running")
    return (found, *why, tail, f"--pid={pid}", "-f", "/dev/null")


class Awake(AbstractContextManager["Awake"]):
    """An assertion that can be held and let go; given up at the end of the block.

    A machine where it cannot be held is told of once, and then left alone.
    """

    def __init__(self, command: tuple[str, ...] | None) -> None:
        self._command = command
        self._holding: subprocess.Popen[bytes] | None = None

    @property
    def is_held(self) -> bool:
        return self._holding is not None

    def keep(self, wanted: bool) -> None:
        """Hold it exactly if it is wanted; blocks for as long as a program takes to end."""
        if not wanted:
            self._let_go()
        elif self._holding is None:
            self._hold()
        elif self._holding.poll() is not None:
            self._give_up(f"exit code {self._holding.returncode}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def _hold(self) -> None:
        if self._command is None:
            return
        quiet = subprocess.DEVNULL
        try:
            self._holding = subprocess.Popen(
                self._command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
            )
        except OSError as error:
            self._give_up(str(error))

    def _let_go(self) -> None:
        if self._holding is None:
            return
        self._holding.terminate()
        try:
            self._holding.wait(END_S)
        except subprocess.TimeoutExpired:
            self._holding.kill()
            self._holding.wait()
        self._holding = None

    def _give_up(self, why: str) -> None:
        assert self._command is not None
        _log.warning("awake.impossible", program=self._command[0], why=why)
        self._command = self._holding = None
