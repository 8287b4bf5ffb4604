"""The log itself: records gathered, written and synced in groups, and read again.

Order obligations: a record is in the file, and synced if it must be, before anyone
sees it; a segment is synced whole before the next one begins; at most
:data:`TAIL_BYTES` are ever in the file unsynced, so whatever a crash tears lies there.
After a failed sync nothing is believed of the file any more (the system may have
dropped the pages), so it is never retried.
"""

import errno as errnos
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from daemon.eventlog.disk import Disk, DiskFile, DiskLock, put_file, write_all
from daemon.eventlog.errors import (
    NO_SPACE,
    Damage,
    LogBusy,
    LogWriteFailed,
)
from daemon.eventlog.opening import TAIL_BYTES, Covers, Findings, examine
from daemon.eventlog.reader import DECODER, Extent, Line, LogReader
from daemon.eventlog.record import RECORD_BYTES_MAX, Record, seal
from daemon.eventlog.segment import segment_name
from daemon.eventlog.snapshot import Position, Snapshot, write_snapshot
from daemon.pool.messages import Cause, DurableEvent

PROBE_BYTES: Final = 1 << 16
"""More than a batch of the usual size: where this fits, the log goes on."""

SEGMENT_BYTES_MAX: Final = 8 << 20
PROBE_NAME: Final = ".probe"


class TailLost(msgspec.Struct, frozen=True, kw_only=True):
    """A torn tail that was cut off: ``lost_bytes`` are kept in the file ``kept_as``."""

    lost_bytes: int
    kept_as: str
    why: str


class OpenReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the log was found.

    Attributes:
        end: After the last record; the caller's clock must not go below ``end.at_ms``.
        snapshot: The newest usable one: replay after its position.
        tail_lost: To be recorded by the caller, if a torn tail was cut off.
        torn: What is wrong behind ``end``, where a log to read was opened.
        warnings: Snapshots that were ignored, and why.
    """

    end: Position
    snapshot: Snapshot | None
    tail_lost: TailLost | None
    torn: Damage | None
    warnings: tuple[str, ...]

    @property
    def replay_after(self) -> int:
        """The record after which replay begins."""
        return self.snapshot.position.seq if self.snapshot else 0


class EventLog(LogReader):
    """An open log. One thread at a time may write; any thread may read meanwhile.

    Attributes:
        read_only: Why nothing can be written until the daemon is started anew, or None.
        blocked: Why the last write did not fit the disk, or None; see :meth:`probe`.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        found: Findings,
        *,
        segment_bytes_max: int,
        file: DiskFile | None,
        lock: DiskLock | None,
    ) -> None:
        """Use :meth:`open`."""
        super().__init__(folder, disk, found)
        self.read_only: str | None = None if lock else "opened for reading"
        self.blocked: str | None = None
        self._segment_bytes_max = segment_bytes_max
        self._file = file
        self._lock = lock
        self._committed = found.end
        self._head = found.end
        self._buffer: list[bytes] = []
        self._unsynced_bytes = 0
        self._rotate = False
        self._cut_due = False

    @classmethod
    def open(
        cls,
        folder: Path,
        disk: Disk,
        *,
        state_version: int = 1,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        writable: bool = True,
        covers: Covers = lambda _: True,
    ) -> tuple[Self, OpenReport]:
        """Check the log in ``folder``, cut off a torn tail, and make it ready.

        Args:
            state_version: Snapshots of any other version are ignored.
            segment_bytes_max: A segment of this size or more is followed by another.
            writable: False changes nothing, takes no lock, and gives a log to read.
            covers: Which snapshots are of use, by their places; the newest such is taken.

        Raises:
            LogBusy: Another process has it open for writing.
            LogDamaged: It is damaged in a way that no crash explains; it is unchanged.
            LogWriteFailed: A torn tail could not be set aside.
            OSError: It cannot be read.
        """
        lock: DiskLock | None = None
        if writable:
            disk.make_folder(folder)
            lock = disk.lock(folder)
            if lock is None:
                raise LogBusy(str(folder))
        try:
            found = examine(disk, folder, state_version, covers)
            lost, file = _settle(disk, folder, found) if writable else (None, None)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        log = cls(folder, disk, found, segment_bytes_max=segment_bytes_max, file=file, lock=lock)
        report = OpenReport(
            end=found.end,
            snapshot=found.snapshot,
            tail_lost=lost,
            torn=None if writable else found.torn,
            warnings=found.warnings,
        )
        return log, report

    def close(self) -> None:
        """Let go of the files and the lock; records that were not committed are gone."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self.read_only = self.read_only or "closed"

    # --- writing ----------------------------------------------------------------

    @property
    def position(self) -> Position:
        """After the last committed record."""
        return self._committed

    def append(self, at_ms: int, cause: Cause, events: tuple[DurableEvent, ...]) -> Record:
        """Number and seal the next record, and hold it for :meth:`commit`.

        Args:
            at_ms: Unix time in milliseconds, not less than the last record's.

        Raises:
            LogWriteFailed: The log is read-only.
            ValueError: The record would not read back as it is; nothing was taken.
        """
        self._refuse_if_read_only()
        assert events, "an empty decision is no record"
        assert at_ms >= self._head.at_ms, f"time went back from {self._head.at_ms} to {at_ms}"
        opens = not self._buffer and self._segment_is_over()
        record, line = seal(
            self._head.seq + 1,
            at_ms,
            cause,
            events,
            self._head.chain,
            opens_segment=opens or (not self._buffer and self._extent.end_bytes == 0),
        )
        if DECODER.decode(line) != record:
            raise ValueError(f"record {record.seq} would not read back as it is: {record}")
        if not self._buffer:
            self._rotate = opens
        self._buffer.append(line + b"\n")
        self._head = Position(seq=record.seq, at_ms=at_ms, chain=record.chain)
        return record

    def commit(self, *, sync: bool) -> tuple[Line, ...]:
        """Write what was appended, and with ``sync`` make the whole log durable.

        Returns:
            The lines that readers see from now on.

        Raises:
            LogWriteFailed: ``retryable``: no space; the file is as before and the
                records are still held, so commit again or :meth:`rollback`. Otherwise
                the log is read-only from here on; what was appended may or may not
                be found at the next start.
        """
        self._refuse_if_read_only()
        try:
            self._cut_back()
            if self._rotate:
                self._start_segment()
            end_bytes = self._write_buffer()
        except OSError as error:
            raise self._write_failed(error) from error
        if sync and self._unsynced_bytes:
            self._sync()
        self.blocked = None
        self._extent = Extent(self._extent.segments, end_bytes, self._head.seq)
        first = self._committed.seq + 1
        lines = tuple(
            Line(first + number, line[:-1].decode()) for number, line in enumerate(self._buffer)
        )
        self._committed = self._head
        self._forget_buffer()
        return lines

    def rollback(self) -> int:
        """Drop what was appended since the last commit; how many records that were."""
        dropped = len(self._buffer)
        self._head = self._committed
        self._forget_buffer()
        return dropped

    def probe(self) -> bool:
        """Whether the disk takes a batch again; what is held can then be committed."""
        if self.read_only:
            return False
        path = self._folder / PROBE_NAME
        try:
            self._cut_back()
            put_file(self._disk, path, bytes(PROBE_BYTES))
            self._disk.remove(path)
        except LogWriteFailed:
            return False  # read_only says why
        except OSError as error:
            self._write_failed(error)
            return False
        self.blocked = None
        return True

    def write_snapshot(self, position: Position, state: bytes, state_version: int) -> None:
        """Keep ``state``, which is what the records up to ``position`` add up to.

        Args:
            position: What :attr:`position` was when the state was taken.

        Raises:
            LogWriteFailed: The log could not be synced first, or the snapshot not
                written; a failed snapshot alone does not make the log read-only.
        """
        self._refuse_if_read_only()
        assert 0 < position.seq <= self._committed.seq, "a snapshot of what is not in the log"
        if self._unsynced_bytes:
            self._sync()
        snapshot = Snapshot(position=position, state_version=state_version, state=state)
        try:
            write_snapshot(self._disk, self._folder, snapshot)
        except OSError as error:
            raise LogWriteFailed(error.errno or errnos.EIO, True, f"snapshot: {error}") from error

    # --- inside -----------------------------------------------------------------

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise LogWriteFailed(errnos.EROFS, False, self.read_only)

    def _segment_is_over(self) -> bool:
        return not self._extent.segments or self._extent.end_bytes >= self._segment_bytes_max

    def _forget_buffer(self) -> None:
        self._buffer = []
        self._rotate = False

    def _start_segment(self) -> None:
        """End the segment, synced, and begin one with the first record that is held."""
        if self._unsynced_bytes:
            self._sync()
        first = self._committed.seq + 1
        file = self._disk.open(self._folder / segment_name(first), "create")
        if self._file is not None:
            self._file.close()
        self._file = file
        self._checked.add(first)
        self._extent = Extent((*self._extent.segments, first), 0, self._committed.seq)
        self._rotate = False
        try:
            self._disk.sync_folder(self._folder)
        except OSError as error:
            raise self._give_up(error) from error

    def _write_buffer(self) -> int:
        """Write what is held; the length of the segment then."""
        offset = self._extent.end_bytes
        for group in _groups(self._buffer):
            if self._unsynced_bytes and self._unsynced_bytes + len(group) > TAIL_BYTES:
                self._sync()
            assert self._file is not None
            self._cut_due = True
            write_all(self._file, offset, group)
            offset += len(group)
            self._unsynced_bytes += len(group)
        self._cut_due = False
        return offset

    def _cut_back(self) -> None:
        """Take a write that failed midway out of the file, durably."""
        if self._cut_due and self._file is not None:
            self._file.truncate(self._extent.end_bytes)
            self._sync()
            self._cut_due = False

    def _sync(self) -> None:
        assert self._file is not None
        try:
            self._file.sync()
        except OSError as error:
            raise self._give_up(error) from error
        self._unsynced_bytes = 0

    def _write_failed(self, error: OSError) -> LogWriteFailed:
        """What a failed write means: held for later, or the end of writing."""
        if error.errno not in NO_SPACE:
            return self._give_up(error)
        self.blocked = str(error.strerror)
        try:
            self._cut_back()
        except LogWriteFailed as second:
            return second
        except OSError as second:
            if second.errno not in NO_SPACE:
                return self._give_up(second)
        return LogWriteFailed(error.errno, True, str(error.strerror))

    def _give_up(self, error: OSError) -> LogWriteFailed:
        self.read_only = str(error.strerror)
        return LogWriteFailed(error.errno or errnos.EIO, False, self.read_only)


def _groups(lines: list[bytes]) -> Iterator[bytes]:
    """The lines in groups that a crash may tear: of TAIL_BYTES at most, or one line."""
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and size + len(line) > TAIL_BYTES:
            yield b"".join(group)
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield b"".join(group)


def _settle(disk: Disk, folder: Path, found: Findings) -> tuple[TailLost | None, DiskFile | None]:
    """Set a torn tail aside, and make what is left durable; the last segment's file.

    After a daemon was killed, its last records may be in the system's cache alone, and
    from now on they are believed. After a sync that failed, the cache may even hold
    them as clean, and another sync would do nothing (that is what Linux does:
    https://lwn.net/Articles/752063/); so what may never have reached the disk is
    written again over itself, and then synced.
    """
    if not found.segments:
        return None, None
    name = segment_name(found.segments[-1])
    file: DiskFile | None = None
    try:
        lost = _keep_tail(disk, folder, name, found)
        file = disk.open(folder / name, "existing")
        if lost is not None:
            file.truncate(found.end_bytes)
        start = max(0, found.end_bytes - TAIL_BYTES - RECORD_BYTES_MAX)
        write_all(file, start, disk.read(folder / name, start, found.end_bytes - start))
        file.sync()
        disk.sync_folder(folder)
        if PROBE_NAME in disk.names(folder):
            disk.remove(folder / PROBE_NAME)
    except OSError as error:
        if file is not None:
            file.close()
        raise LogWriteFailed(error.errno or errnos.EIO, False, str(error)) from error
    return lost, file


def _keep_tail(disk: Disk, folder: Path, name: str, found: Findings) -> TailLost | None:
    if found.torn is None:
        return None
    taken = set(disk.names(folder))
    number = next(n for n in range(1, len(taken) + 2) if f"{name}.torn-{n}" not in taken)
    kept_as = f"{name}.torn-{number}"
    tail = disk.read(folder / name, found.end_bytes, found.torn_bytes)
    put_file(disk, folder / kept_as, tail)
    disk.sync_folder(folder)
    return TailLost(lost_bytes=found.torn_bytes, kept_as=kept_as, why=found.torn.why)
