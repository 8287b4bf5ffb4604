"""Snapshots: whole or not there, the two newest, and only those that fit the log."""

import errno
import hashlib
import json
from random import Random

import pytest

from daemon.eventlog.errors import LogDamaged
from daemon.eventlog.log import EventLog
from daemon.eventlog.record import GENESIS
from daemon.eventlog.segment import segment_name
from daemon.eventlog.snapshot import (
    Position,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
    read_snapshot,
    snapshot_name,
    snapshots_in,
    write_snapshot,
)
from tests.daemon.eventlog.samples import EVENTS, flip_bit, grow
from tests.fakes.disk import Crash, FaultyDisk


def snapshot(seq: int, state: bytes = b"\x00state\n\xff") -> Snapshot:
    position = Position(seq=seq, at_ms=1000 + seq, chain=GENESIS)
    return Snapshot(position=position, state_version=3, state=state)


def snapshot_of(position: Position, state_version: int) -> Snapshot:
    return Snapshot(position=position, state_version=state_version, state=b"")


@pytest.fixture
def disk() -> FaultyDisk:
    disk = FaultyDisk(Random(1))
    disk.make_folder(EVENTS)
    return disk


def test_the_file_is_one_line_of_json_and_the_state() -> None:
    data = encode_snapshot(snapshot(7))
    line, _, state = data.partition(b"\n")
    header = json.loads(line)
    digest = header.pop("sha256")
    assert header == {
        "snapshot": 1,
        "seq": 7,
        "at_ms": 1007,
        "chain": GENESIS,
        "state_version": 3,
        "state_bytes": len(state),
    }
    body = line[: line.rindex(b',"sha256"')]
    assert digest == hashlib.sha256(body + b"\n" + state).hexdigest()
    assert decode_snapshot(data) == snapshot(7)


def test_every_cut_and_every_flipped_bit_is_seen() -> None:
    data = encode_snapshot(snapshot(7))
    for size in range(len(data)):
        with pytest.raises(ValueError, match="hash"):
            decode_snapshot(data[:size])
    random = Random(1)
    for _ in range(500):
        with pytest.raises(ValueError, match="hash"):
            decode_snapshot(flip_bit(data, random))


def test_the_two_newest_are_kept(disk: FaultyDisk) -> None:
    for seq in (3, 5, 8, 9):
        write_snapshot(disk, EVENTS, snapshot(seq))
    assert snapshots_in(disk, EVENTS) == (9, 8)
    write_snapshot(disk, EVENTS, snapshot(4))
    assert snapshots_in(disk, EVENTS) == (4,), "those of records that were lost are of no use"


def test_what_cannot_be_used_says_why(disk: FaultyDisk) -> None:
    write_snapshot(disk, EVENTS, snapshot(3))
    assert read_snapshot(disk, EVENTS, 3, 3) == read_snapshot(disk, EVENTS, 3, None) == snapshot(3)
    with pytest.raises(ValueError, match="has version 3, this program's has 4"):
        read_snapshot(disk, EVENTS, 3, 4)
    disk.put(EVENTS / snapshot_name(6), disk.contents(EVENTS / snapshot_name(3)))
    with pytest.raises(ValueError, match="it is of record 3"):
        read_snapshot(disk, EVENTS, 6, 3)
    with pytest.raises(ValueError, match="cannot be read"):
        read_snapshot(disk, EVENTS, 9, 3)


def test_a_failed_write_leaves_the_old_ones(disk: FaultyDisk) -> None:
    write_snapshot(disk, EVENTS, snapshot(3))
    failures = (("write", errno.ENOSPC), ("sync", errno.EIO), ("rename", errno.EIO))
    for operation, number in failures:
        disk.fail_next = {operation: number}  # type: ignore[dict-item]  # they are operations
        with pytest.raises(OSError, match=r"."):
            write_snapshot(disk, EVENTS, snapshot(5))
        assert snapshots_in(disk, EVENTS) == (3,)
    write_snapshot(disk, EVENTS, snapshot(6))
    assert disk.names(EVENTS) == [snapshot_name(3), snapshot_name(6)], "leftovers go"


def test_a_crash_anywhere_leaves_an_old_or_the_new_one() -> None:
    seen = set()
    for seed in range(20):
        for operation in range(1, 9):
            disk = FaultyDisk(Random(seed))
            disk.make_folder(EVENTS)
            write_snapshot(disk, EVENTS, snapshot(3))
            disk.crash_at = disk.operations + operation
            try:
                write_snapshot(disk, EVENTS, snapshot(5))
            except Crash:
                pass
            else:
                assert operation > 5
            disk = disk.after_power_loss()
            newest = snapshots_in(disk, EVENTS)[0]
            assert read_snapshot(disk, EVENTS, newest, 3) == snapshot(newest)
            seen.add(newest)
    assert seen == {3, 5}


def logged(disk: FaultyDisk) -> None:
    """Ten records with snapshots after the sixth and the eighth."""
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=700)
    for count in (6, 2):
        grow(log, count)
        log.write_snapshot(log.position, str(log.position.seq).encode(), 1)
    grow(log, 2)
    log.close()


@pytest.mark.parametrize("harm", ["flipped", "version", "chain", "missing"])
def test_an_older_one_or_the_whole_log_serves_instead(disk: FaultyDisk, harm: str) -> None:
    logged(disk)
    log, before = EventLog.open(EVENTS, disk)
    assert before.replay_after == 8
    log.close()
    newest = EVENTS / snapshot_name(8)
    good = decode_snapshot(disk.contents(newest))
    if harm == "flipped":
        disk.put(newest, flip_bit(disk.contents(newest), Random(3)))
    elif harm == "version":
        disk.put(newest, encode_snapshot(snapshot_of(good.position, 2)))
    elif harm == "chain":
        elsewhere = Position(seq=8, at_ms=good.position.at_ms, chain="f" * 32)
        disk.put(newest, encode_snapshot(snapshot_of(elsewhere, 1)))
    else:
        disk.remove(newest)
    log, report = EventLog.open(EVENTS, disk)
    assert report.replay_after == 6
    assert len(report.warnings) == (harm != "missing")
    assert all("after record 8 was ignored" in warning for warning in report.warnings)
    assert [record.seq for record in log.replay(report.replay_after)] == [7, 8, 9, 10]


def test_one_from_the_future_is_ignored_with_a_reason(disk: FaultyDisk) -> None:
    logged(disk)
    last = max(name for name in disk.names(EVENTS) if name.endswith(".jsonl"))
    first = int(last[:16])
    disk.put(EVENTS / last, b"")
    log, report = EventLog.open(EVENTS, disk)
    assert report.end.seq == first - 1
    assert report.snapshot is None or report.replay_after < first
    if first <= 8:
        assert "records were lost" in report.warnings[0]
    log.close()
    disk.remove(EVENTS / last)
    for name in disk.names(EVENTS):
        if name.endswith(".jsonl"):
            disk.remove(EVENTS / name)
    log, report = EventLog.open(EVENTS, disk)
    assert (report.end.seq, report.snapshot) == (0, None)
    assert len(report.warnings) == 2


def test_damage_after_the_snapshot_is_still_refused(disk: FaultyDisk) -> None:
    """The segment that holds the snapshot's record, and all later ones, are read whole."""
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=700)
    grow(log, 6)
    log.write_snapshot(log.position, b"six", 1)
    grow(log, 10)
    log.close()
    names = [name for name in disk.names(EVENTS) if name.endswith(".jsonl")]
    middle = next(name for name in names if 6 < int(name[:16]) < int(names[-1][:16]))
    data = disk.contents(EVENTS / middle)
    place = data.index(b"\n") - 70
    disk.put(EVENTS / middle, data[:place] + b"#" + data[place + 1 :])
    with pytest.raises(LogDamaged, match=middle):
        EventLog.open(EVENTS, disk)
    assert segment_name(1) in names
