"""Locks that say who lives: held (flock) by a program for its life, with its pid inside."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

_TRIES: Final = 5
_LOOK_LASTS_S: Final = 0.01
"""Who asks whether a lock is held takes it for a moment: one that seems taken is tried again."""


class AlreadyRunning(Exception):
    """Another process holds the lock."""


class Holder(msgspec.Struct, frozen=True):
    """What a holder writes into its lock file."""

    pid: int


@contextmanager
def held(lock: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``lock`` for the length of the block; its folder must exist.

    Args:
        wait: Wait for a holder to end, as long as it takes, where otherwise it is an error.

    Raises:
        AlreadyRunning: Another process holds it.
    """
    with lock.open("ab") as file:
        if not _taken(file.fileno()):
            if not wait:
                raise AlreadyRunning(str(lock))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(msgspec.json.encode(Holder(os.getpid())) + b"\n")
        file.flush()
        yield


def is_held(lock: Path) -> bool:
    """Whether a living process holds the lock file: the one test of being alive."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with closing(os.fdopen(fd, "rb")) as file:
        return not _try(file.fileno(), fcntl.LOCK_SH)


def holder_pid(lock: Path) -> int | None:
    """The process that holds ``lock``; None if nobody does, 0 if it does not say its pid."""
    if not is_held(lock):
        return None
    try:
        return msgspec.json.decode(lock.read_bytes(), type=Holder).pid
    except (OSError, msgspec.MsgspecError):
        return 0


def _taken(fd: int) -> bool:
    for attempt in range(_TRIES):
        if _try(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_LOOK_LASTS_S * attempt)
    return False


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
