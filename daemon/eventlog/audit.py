"""The whole log looked at without the daemon: verified, and put in order if need be."""

from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from daemon.eventlog.disk import BLOCK_BYTES, Disk, DiskLock, write_all
from daemon.eventlog.errors import Damage, LogBusy
from daemon.eventlog.log import EventLog
from daemon.eventlog.opening import is_torn_tail
from daemon.eventlog.record import LineDecoder
from daemon.eventlog.segment import (
    Scan,
    Visit,
    link_damage,
    scan_segment,
    segment_name,
    segments_in,
)
from daemon.eventlog.snapshot import read_snapshot, snapshots_in
from daemon.pool.messages import Cause, LogTailLost

LOOKS_MAX: Final = 5
"""How often a tail that changes under the reader is looked at before it is called torn."""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole log holds.

    Attributes:
        records: Good ones, in all segments.
        last_seq: Last good record of the last segment; 0 for an empty log.
        damages: At most one a segment, and one between each two; what follows a damage
            in its segment is not looked at.
        torn_tail: Whether the only damage is what a crash leaves behind: the next start
            of the daemon sets it aside by itself.
        unreadable: Intact records that this version cannot read, and why; the first few.
        snapshots: Record -> why its snapshot cannot be used, "" if it can.
    """

    segments: int
    records: int
    bytes: int
    last_seq: int
    last_at_ms: int
    damages: tuple[Damage, ...]
    torn_tail: bool
    unreadable: tuple[str, ...]
    snapshots: dict[int, str]

    @property
    def sound(self) -> bool:
        """Whether every byte is as it was written and every record can be read."""
        return not self.damages and not self.unreadable


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did; nothing was deleted.

    Attributes:
        damage: What was repaired; None if there was nothing to do.
        set_aside: Files that hold what is no longer part of the log.
        lost_bytes: Of the log, kept in those files.
        lost_from_seq: The first record that is no longer part of the log.
        lost_to_seq: The last one, as far as it can be told.
    """

    damage: Damage | None
    set_aside: tuple[str, ...] = ()
    lost_bytes: int = 0
    lost_from_seq: int = 0
    lost_to_seq: int = 0


class _Reading:
    """Decodes what a scan has found good, and keeps what cannot be read."""

    NOTED_MAX: Final = 5

    def __init__(self) -> None:
        self._decoder = LineDecoder()
        self.at_ms = 0
        self.path = Path()
        self.noted: list[str] = []

    def visit(self, lines: list[bytes], seq: int, offset: int) -> None:
        decode = self._decoder.decode
        at_ms = self.at_ms
        for number, line in enumerate(lines, seq):
            try:
                record = decode(line)
            except ValueError as error:
                self._note(lines, number - seq, offset, str(error))
                continue
            if record.seq != number or record.at_ms < at_ms:
                self._note(lines, number - seq, offset, "its number or its time goes back")
            at_ms = record.at_ms
        self.at_ms = at_ms

    def _note(self, lines: list[bytes], number: int, offset: int, why: str) -> None:
        if len(self.noted) < self.NOTED_MAX:
            at = offset + sum(map(len, lines[:number])) + number
            self.noted.append(f"the record at byte {at} of {self.path}: {why}")


def verify(disk: Disk, folder: Path) -> VerifyReport:
    """Check every byte and read every record, streaming; a daemon may be writing meanwhile.

    Raises:
        OSError: A file cannot be read.
    """
    segments = segments_in(disk, folder)
    reading = _Reading()
    scans: list[Scan] = []
    for first in segments:
        reading.path = folder / segment_name(first)
        scan = scan_patiently if first == segments[-1] else scan_segment
        scans.append(scan(disk, reading.path, first, reading.visit))
    damages = _damages(folder, scans)
    return VerifyReport(
        segments=len(scans),
        records=sum(scan.last_seq - scan.first_seq + 1 for scan in scans),
        bytes=sum(scan.good_bytes for scan in scans),
        last_seq=scans[-1].last_seq if scans else 0,
        last_at_ms=reading.at_ms,
        damages=tuple(damages),
        torn_tail=len(damages) == 1 and is_torn_tail(scans[-1]),
        unreadable=tuple(reading.noted),
        snapshots=_judge_snapshots(disk, folder, scans[-1].last_seq if scans else 0),
    )


def scan_patiently(disk: Disk, path: Path, first_seq: int, visit: Visit | None = None) -> Scan:
    """Scan a last segment; a line that is just being written is not called torn."""
    scan = scan_segment(disk, path, first_seq, visit)
    for _ in range(LOOKS_MAX):
        if not is_torn_tail(scan):
            break
        before = scan
        scan = scan_segment(disk, path, first_seq)
        if (scan.size_bytes, scan.good_bytes) == (before.size_bytes, before.good_bytes):
            break
    return scan


def _damages(folder: Path, scans: list[Scan]) -> list[Damage]:
    found = [scan.damage for scan in scans if scan.damage is not None]
    for before, after in pairwise([None, *scans]):
        if after is None or (before is not None and before.damage is not None):
            continue  # what follows a damaged segment need not follow its good part
        damage = link_damage(folder, before, after)
        if damage is not None:
            found.append(damage)
    return found


def _judge_snapshots(disk: Disk, folder: Path, last_seq: int) -> dict[int, str]:
    judged: dict[int, str] = {}
    for seq in snapshots_in(disk, folder):
        judged[seq] = "" if seq <= last_seq else f"the log ends at record {last_seq}"
        try:
            read_snapshot(disk, folder, seq, None)
        except ValueError as error:
            judged[seq] = str(error)
    return judged


def repair(disk: Disk, folder: Path, now_ms: int) -> RepairReport:
    """Make the log what is good of it, up to the first damage, and record the loss in it.

    What no longer belongs to it is kept beside it under another name. Interrupted at
    any moment, the log is as damaged as it was, or repaired.

    Args:
        now_ms: Unix time for the record of the loss.

    Raises:
        LogBusy: A daemon is writing; stop it first.
        OSError: The disk refused; run it again.
    """
    lock = disk.lock(folder)
    if lock is None:
        raise LogBusy(str(folder))
    return _repair_locked(disk, folder, now_ms, lock)


def _repair_locked(disk: Disk, folder: Path, now_ms: int, lock: DiskLock) -> RepairReport:
    try:
        scans = [scan_segment(disk, folder / segment_name(s), s) for s in segments_in(disk, folder)]
        keep, damage = _first_damage(folder, scans)
        if damage is None:
            return RepairReport(damage=None)
        cut = keep[-1] if keep and keep[-1].good_bytes < keep[-1].size_bytes else None
        dropped = scans[len(keep) :]
        aside: list[str] = []
        if cut is not None:
            aside.append(_copy_aside(disk, folder, segment_name(cut.first_seq), cut.size_bytes))
        aside += [_move_aside(disk, folder, segment_name(scan.first_seq)) for scan in dropped]
        if cut is not None:
            _truncate(disk, folder / segment_name(cut.first_seq), cut.good_bytes)
    finally:
        lock.release()
    report = RepairReport(
        damage=damage,
        set_aside=tuple(aside),
        lost_bytes=sum(scan.size_bytes for scan in dropped)
        + (cut.size_bytes - cut.good_bytes if cut else 0),
        lost_from_seq=keep[-1].last_seq + 1 if keep else 1,
        lost_to_seq=max(scan.last_seq for scan in [*dropped, *keep[-1:]]),
    )
    _record_loss(disk, folder, now_ms, report)
    return report


def _first_damage(folder: Path, scans: list[Scan]) -> tuple[list[Scan], Damage | None]:
    """The segments to keep, of which the last may be good in part, and what ends them."""
    before: Scan | None = None
    for number, scan in enumerate(scans):
        damage = link_damage(folder, before, scan)
        if damage is not None:
            return scans[:number], damage
        if scan.damage is not None:
            return scans[: number + 1], scan.damage
        before = scan
    return scans, None


def _free_name(disk: Disk, folder: Path, name: str) -> str:
    taken = set(disk.names(folder))
    number = next(n for n in range(1, len(taken) + 2) if f"{name}.damaged-{n}" not in taken)
    return f"{name}.damaged-{number}"


def _move_aside(disk: Disk, folder: Path, name: str) -> str:
    kept_as = _free_name(disk, folder, name)
    disk.rename(folder / name, folder / kept_as)
    disk.sync_folder(folder)
    return kept_as


def _copy_aside(disk: Disk, folder: Path, name: str, size: int) -> str:
    kept_as = _free_name(disk, folder, name)
    temporary = folder / f"{kept_as}.tmp"
    file = disk.open(temporary, "replace")
    try:
        for offset in range(0, size, BLOCK_BYTES):
            write_all(file, offset, disk.read(folder / name, offset, BLOCK_BYTES))
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, folder / kept_as)
    disk.sync_folder(folder)
    return kept_as


def _truncate(disk: Disk, path: Path, size: int) -> None:
    file = disk.open(path, "existing")
    try:
        file.truncate(size)
        file.sync()
    finally:
        file.close()


def _record_loss(disk: Disk, folder: Path, now_ms: int, report: RepairReport) -> None:
    log, opened = EventLog.open(folder, disk)
    try:
        event = LogTailLost(lost_bytes=report.lost_bytes, kept_as=", ".join(report.set_aside))
        log.append(max(now_ms, opened.end.at_ms), Cause(command="log repair"), (event,))
        log.commit(sync=True)
    finally:
        log.close()
