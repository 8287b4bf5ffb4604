"""What a log's folder holds, and whether it may be opened: looks, and changes nothing.

The last segment and everything after the newest usable snapshot are checked line by
line; of older segments the two ends, which shows a missing or exchanged file. All
bytes are checked by `mlxd log verify`, or here when there is no snapshot.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from daemon.eventlog.disk import Disk
from daemon.eventlog.errors import Damage, LogDamaged
from daemon.eventlog.record import GENESIS, chain_of
from daemon.eventlog.segment import (
    Scan,
    glance_segment,
    lines_after,
    link_damage,
    scan_segment,
    segment_name,
    segments_in,
)
from daemon.eventlog.snapshot import Position, Snapshot, read_snapshot, snapshots_in

TAIL_BYTES: Final = 1 << 16
"""What a crash can tear: at most this much is ever written without a sync."""

START: Final = Position(seq=0, at_ms=0, chain=GENESIS)


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """A log that may be opened.

    Attributes:
        segments: First record of each.
        end: After the last good record.
        end_bytes: Length of what is good in the last segment.
        torn: What a crash left behind ``end_bytes``, ``torn_bytes`` long.
        checked: The segments of which every byte was checked.
        warnings: Why newer snapshots were passed over.
    """

    segments: tuple[int, ...] = ()
    checked: frozenset[int] = frozenset()
    end: Position = START
    end_bytes: int = 0
    torn: Damage | None = None
    torn_bytes: int = 0
    snapshot: Snapshot | None = None
    warnings: tuple[str, ...] = ()


class _Stamp(msgspec.Struct):
    at_ms: int


Covers = Callable[[Position], bool]
"""Whether a snapshot after that place is of use; those that are not are passed over."""


def is_torn_tail(last: Scan) -> bool:
    """Whether what is wrong with the last segment is what a crash leaves behind."""
    return last.damage is not None and (
        last.size_bytes - last.good_bytes <= TAIL_BYTES or last.one_line
    )


class _Folder:
    """The segments of one folder, each scanned at most once."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self.disk = disk
        self.folder = folder
        self.segments = segments_in(disk, folder)
        self.scans: dict[int, Scan] = {}

    def path(self, first_seq: int) -> Path:
        return self.folder / segment_name(first_seq)

    def scan(self, first_seq: int) -> Scan:
        """What the segment holds; damage in any but the last is raised."""
        if first_seq not in self.scans:
            scan = scan_segment(self.disk, self.path(first_seq), first_seq)
            if scan.damage and (first_seq != self.segments[-1] or not is_torn_tail(scan)):
                raise LogDamaged(scan.damage)
            self.scans[first_seq] = scan
        return self.scans[first_seq]

    def line(self, seq: int) -> bytes:
        """The line of one record of this log."""
        first = max(s for s in self.segments if s <= seq)
        end = self.scan(first).good_bytes
        _, lines = next(lines_after(self.disk, self.path(first), end, seq - 1))
        return lines[0]


def examine(
    disk: Disk, folder: Path, state_version: int, covers: Covers = lambda _: True
) -> Findings:
    """Find the end of the log and the newest snapshot that fits it and that ``covers`` takes.

    Raises:
        LogDamaged: Something is wrong that no crash explains.
        OSError: A file cannot be read.
    """
    log = _Folder(disk, folder)
    if not log.segments:
        _, warnings = _choose_snapshot(log, START, state_version, covers)
        return Findings(warnings=warnings)
    last = log.scan(log.segments[-1])
    _check_links(log, last)
    end_seq = max(last.last_seq, last.first_seq - 1)
    end = _position(log.line(end_seq), end_seq) if end_seq else START
    snapshot, warnings = _choose_snapshot(log, end, state_version, covers)
    after = snapshot.position.seq if snapshot else 0
    for first, following in pairwise(log.segments):
        if following > after:
            log.scan(first)
    return Findings(
        segments=log.segments,
        checked=frozenset(log.scans),
        end=end,
        end_bytes=last.good_bytes,
        torn=last.damage,
        torn_bytes=last.size_bytes - last.good_bytes,
        snapshot=snapshot,
        warnings=warnings,
    )


def _check_links(log: _Folder, last: Scan) -> None:
    """Each segment but the last has two good ends, and each follows the one before."""
    before: Scan | None = None
    for first in log.segments:
        is_last = first == last.first_seq
        here = last if is_last else glance_segment(log.disk, log.path(first), first)
        damage = link_damage(log.folder, before, here) or (None if is_last else here.damage)
        if damage is not None:
            for suspect in (before, here):  # a closer look says where exactly
                if suspect is not None:
                    log.scan(suspect.first_seq)
            raise LogDamaged(damage)
        before = here


def _position(line: bytes, seq: int) -> Position:
    chain = (chain_of(line) or b"").decode()
    return Position(seq=seq, at_ms=msgspec.json.decode(line, type=_Stamp).at_ms, chain=chain)


def _choose_snapshot(
    log: _Folder, end: Position, state_version: int, covers: Covers
) -> tuple[Snapshot | None, tuple[str, ...]]:
    """The newest snapshot that is whole and tells of this log, and why not newer ones."""
    warnings: list[str] = []
    for seq in snapshots_in(log.disk, log.folder):
        try:
            snapshot = _usable_snapshot(log, seq, end, state_version)
            if covers(snapshot.position):
                return snapshot, tuple(warnings)
        except ValueError as error:
            warnings.append(f"the snapshot after record {seq} was ignored: {error}")
    return None, tuple(warnings)


def _usable_snapshot(log: _Folder, seq: int, end: Position, state_version: int) -> Snapshot:
    """Raises ValueError: why the snapshot after record ``seq`` cannot be used."""
    if seq > end.seq:
        raise ValueError(f"the log ends at record {end.seq}: records were lost")
    snapshot = read_snapshot(log.disk, log.folder, seq, state_version)
    if snapshot.position != _position(log.line(seq), seq):
        raise ValueError("it belongs to other records than the log's")
    return snapshot
