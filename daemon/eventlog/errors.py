"""What can go wrong with the log, classed by what the caller should do next."""

import errno as errnos
from typing import Final

import msgspec

NO_SPACE: Final = frozenset({errnos.ENOSPC, errnos.EDQUOT})
"""Failures of a write that pass when somebody makes room."""


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a log stops being what was written.

    Attributes:
        file: Path of the damaged segment.
        offset: Byte at which the first bad line begins.
        seq: The record that should begin there.
        why: What was found instead.
    """

    file: str
    offset: int
    seq: int
    why: str

    def __str__(self) -> str:
        return f"{self.file} is damaged at byte {self.offset} (record {self.seq}): {self.why}"


class LogError(Exception):
    """Base of the log's failures."""


class LogDamaged(LogError):
    """Damage that no crash explains: the log is not opened, nothing was changed."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(
            f"{damage}; run `mlxd log verify` to see all of it, and `mlxd log repair` "
            "to keep what is good and set the rest aside"
        )
        self.damage = damage


class LogTooNew(LogError):
    """An intact record that this version cannot read, so nothing is guessed from it."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"{where} is intact but this version of mlxd cannot read it ({why}); "
            "run the version that wrote it, or a later one"
        )


class LogBusy(LogError):
    """Another process writes this log."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"{folder} is in use by another mlxd; stop it first")


class LogWriteFailed(LogError):
    """The disk refused.

    Attributes:
        errno: The system's reason.
        retryable: True if the records are still held, none of them is in the file, and
            a later commit can succeed; False if the log is read-only from here on.
    """

    def __init__(self, errno: int, retryable: bool, why: str) -> None:
        advice = (
            "free space on its disk" if retryable else "check the disk, then restart the daemon"
        )
        super().__init__(f"the event log cannot be written ({why}); {advice}")
        self.errno = errno
        self.retryable = retryable
