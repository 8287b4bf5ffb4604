"""Locks that say who lives: held (flock) by a program for its life, with its pid inside."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec


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
    with lock.open("ab", buffering=0) as file:
        if not take(file.fileno()):
            if not wait:
                raise AlreadyRunning(str(lock))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        with suppress(OSError):  # a full disk: held all the same, by who does not say its pid
            file.write(msgspec.json.encode(Holder(os.getpid())) + b"\n")
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


def take(fd: int) -> bool:
    """Take the lock of an open file, until that is closed; False if somebody holds it.

    Who asks whether a lock is held shares it for a moment, and turns nobody away by that.
    """
    while not _try(fd, fcntl.LOCK_EX):
        if not _try(fd, fcntl.LOCK_SH):
            return False
    return True


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
