"""What an installer does, as data: shown by ``--dry-run``, carried out otherwise."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.locks import holder_pid, is_held
from daemon.wire.paths import make_private

LOOK_EVERY_S: Final = 0.1
RETRIES_MAX: Final = 50
"""For commands that fail for a while, for want of a better sign at this pace: 5 s."""

STARTS_EVERY: Final = 10

START_S: Final = 60.0
"""From the command to a held lock; a cold disk and a busy machine included."""

COMPLAINED_S: Final = 10.0
"""Of it, once it has said something and still does not run."""

END_S: Final = 75.0
"""The service files give 60 s from SIGTERM to SIGKILL."""


class MakeFolder(msgspec.Struct, frozen=True):
    path: Path


class WriteFile(msgspec.Struct, frozen=True):
    """Replace a file at once; launchd refuses what group or others may write to."""

    path: Path
    content: bytes


class Remove(msgspec.Struct, frozen=True):
    """A file, or a folder with all that is in it; or nothing, where there is none."""

    path: Path


class RemoveIfEmpty(msgspec.Struct, frozen=True):
    path: Path


class Command(msgspec.Struct, frozen=True):
    """Run a program.

    Attributes:
        accepted: Exit codes beside 0 that are as good.
        retried: Exit codes after which the same is tried again for a while.
    """

    argv: tuple[str, ...]
    accepted: frozenset[int] = frozenset()
    retried: frozenset[int] = frozenset()


class UntilFails(msgspec.Struct, frozen=True):
    """Wait until a question is answered with no: what it asks about is gone."""

    argv: tuple[str, ...]


class UntilFree(msgspec.Struct, frozen=True):
    """Wait until the program that holds a lock has ended."""

    lock: Path


class UntilHeld(msgspec.Struct, frozen=True):
    """Wait until a program runs; what it said until then is in ``log``.

    Attributes:
        start: Starts it, without effect while it runs. A process that is about to end is
            still running to its service manager, so that once may be too early.
    """

    lock: Path
    log: Path
    start: tuple[str, ...]


class EndHolder(msgspec.Struct, frozen=True):
    """Tell the program that holds a lock to end, whoever started it."""

    lock: Path


Step = (
    MakeFolder
    | WriteFile
    | Remove
    | RemoveIfEmpty
    | Command
    | UntilFails
    | UntilFree
    | UntilHeld
    | EndHolder
)


class Ran(msgspec.Struct, frozen=True):
    """How a program ended."""

    code: int
    said: str


Run = Callable[[tuple[str, ...]], Ran]


def run_program(argv: tuple[str, ...]) -> Ran:
    """Run a program of the system to its end.

    Raises:
        MlxdError: ``not_found`` if there is no such program.
    """
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
        )
    except OSError as error:
        raise MlxdError(Code.NOT_FOUND, f"cannot run {argv[0]}: {error.strerror}") from error
    return Ran(done.returncode, (done.stdout + done.stderr).strip())


def told(step: Step) -> str:
    """One line for people, as a shell would take it where it is a command."""
    match step:
        case MakeFolder(path):
            return f"make the folder {path}"
        case WriteFile(path, _):
            return f"write {path}"
        case Remove(path):
            return f"remove {path}"
        case RemoveIfEmpty(path):
            return f"remove {path} if it is empty"
        case Command(argv):
            return f"run: {shlex.join(argv)}"
        case UntilFails(argv):
            return f"wait until this fails: {shlex.join(argv)}"
        case UntilFree(lock):
            return f"wait until {lock} is free"
        case UntilHeld(lock):
            return f"wait until {lock} is held"
        case EndHolder(lock):
            return f"send SIGTERM to the process that holds {lock}"
        case _:
            assert_never(step)


def carry_out(steps: Iterable[Step], run: Run = run_program) -> None:
    """Do one step after the other.

    Raises:
        MlxdError: One failed; what came before it is done, and the same may be asked again.
    """
    for step in steps:
        _do(step, run)


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The end of a text file; nothing if it cannot be read."""
    try:
        return log.read_text("utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []


def _do(step: Step, run: Run) -> None:
    match step:
        case MakeFolder(path):
            make_private(path)
        case WriteFile():
            _write(step)
        case Remove(path):
            _remove(path)
        case RemoveIfEmpty(path):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        case Command():
            _command(step, run)
        case UntilFails(argv):
            _wait(lambda: run(argv).code != 0, END_S, f"{shlex.join(argv)} still succeeds")
        case UntilFree(lock):
            _wait(lambda: not is_held(lock), END_S, f"the process that holds {lock} goes on")
        case UntilHeld():
            _until_held(step, run)
        case EndHolder(lock):
            _end_holder(lock)
        case _:
            assert_never(step)


def _write(step: WriteFile) -> None:
    step.path.parent.mkdir(parents=True, exist_ok=True)
    part = step.path.with_name(f".{step.path.name}.part")
    part.write_bytes(step.content)
    part.chmod(0o644)
    part.replace(step.path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _command(step: Command, run: Run) -> None:
    for _ in range(RETRIES_MAX):
        ran = run(step.argv)
        if ran.code not in step.retried:
            break
        time.sleep(LOOK_EVERY_S)
    if ran.code != 0 and ran.code not in step.accepted:
        raise MlxdError(
            Code.INTERNAL,
            f"'{shlex.join(step.argv)}' ended with exit code {ran.code}: {ran.said or 'no word'}",
            hint="mlxctl service status shows what there is; asking again goes on from there",
        )


def _wait(holds: Callable[[], bool], limit_s: float, problem: str) -> None:
    for _ in range(round(limit_s / LOOK_EVERY_S)):
        if holds():
            return
        time.sleep(LOOK_EVERY_S)
    raise MlxdError(
        Code.DEADLINE,
        f"after {limit_s:.0f} s {problem}",
        hint="mlxctl service status shows what there is",
    )


def _until_held(step: UntilHeld, run: Run) -> None:
    said_before = _size_bytes(step.log)
    for tries in range(round(START_S / LOOK_EVERY_S)):
        if is_held(step.lock):
            return
        has_complained = _size_bytes(step.log) != said_before
        if has_complained and tries * LOOK_EVERY_S >= COMPLAINED_S:
            break
        time.sleep(LOOK_EVERY_S)
        if tries % STARTS_EVERY == STARTS_EVERY - 1:
            run(step.start)
    raise MlxdError(
        Code.DEADLINE,
        f"it does not run after {tries * LOOK_EVERY_S:.0f} s; {step.log} ends with: "
        f"{' / '.join(last_lines(step.log)) or 'nothing'}",
        hint="mend what it says, then: mlxctl service restart",
    )


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _end_holder(lock: Path) -> None:
    pid = holder_pid(lock)
    if pid is None:
        return
    if pid == 0:
        raise MlxdError(
            Code.CONFLICT, f"a process holds {lock} and does not say which; end it, and ask again"
        )
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGTERM)
