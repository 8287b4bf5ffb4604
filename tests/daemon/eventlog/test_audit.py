"""Verify and repair: what is found, what is kept, and that nothing is deleted."""

from pathlib import Path
from random import Random

import pytest

from daemon.eventlog.audit import repair, verify
from daemon.eventlog.errors import Damage, LogBusy
from daemon.eventlog.log import EventLog
from daemon.eventlog.opening import TAIL_BYTES
from daemon.eventlog.segment import segment_name, segments_in
from daemon.pool.messages import LogTailLost
from tests.daemon.eventlog.samples import EVENTS, START_MS, build, grow
from tests.fakes.disk import FaultyDisk


def log_of(count: int) -> FaultyDisk:
    disk = FaultyDisk(Random(1))
    build(disk, EVENTS, count, segment_bytes_max=700)
    assert len(segments_in(disk, EVENTS)) > 4
    return disk


def harm(disk: FaultyDisk, path: Path, line: int = 1) -> int:
    """Change a byte in a line of the file; where that line begins."""
    lines = disk.contents(path).splitlines(keepends=True)
    offset = sum(map(len, lines[:line]))
    lines[line] = lines[line].replace(b'"at_ms"', b'"at_mS"')
    disk.put(path, b"".join(lines))
    return offset


def all_bytes(disk: FaultyDisk) -> dict[str, bytes]:
    return {name: disk.contents(EVENTS / name) for name in disk.names(EVENTS)}


def test_a_sound_log() -> None:
    disk = log_of(20)
    before = all_bytes(disk)
    found = verify(disk, EVENTS)
    assert found.sound
    assert (found.records, found.last_seq, found.last_at_ms) == (20, 20, START_MS + 20)
    assert found.bytes == sum(map(len, before.values()))
    assert found.segments == len(before)
    assert repair(disk, EVENTS, START_MS).damage is None
    assert all_bytes(disk) == before


def test_no_log_at_all() -> None:
    disk = FaultyDisk(Random(1))
    disk.make_folder(EVENTS)
    found = verify(disk, EVENTS)
    assert found.sound
    assert (found.records, found.segments) == (0, 0)
    assert repair(disk, EVENTS, 0).damage is None


def test_each_damaged_segment_is_named() -> None:
    disk = log_of(30)
    firsts = segments_in(disk, EVENTS)
    places = [harm(disk, EVENTS / segment_name(first)) for first in (firsts[1], firsts[3])]
    disk.remove(EVENTS / segment_name(firsts[-2]))
    found = verify(disk, EVENTS)
    assert not found.sound
    assert not found.torn_tail
    assert [(Path(d.file).name, d.offset) for d in found.damages[:2]] == [
        (segment_name(firsts[1]), places[0]),
        (segment_name(firsts[3]), places[1]),
    ]
    assert f"records {firsts[-2]} to {firsts[-1] - 1} are missing" in found.damages[2].why


def test_snapshots_are_judged() -> None:
    disk = log_of(20)
    log, _ = EventLog.open(EVENTS, disk)
    log.write_snapshot(log.position, b"x", 1)
    log.close()
    assert verify(disk, EVENTS).snapshots == {20: ""}
    disk.remove(EVENTS / segment_name(segments_in(disk, EVENTS)[-1]))
    assert "the log ends at record" in verify(disk, EVENTS).snapshots[20]


def test_repair_keeps_the_good_part_and_everything_else_beside_it() -> None:
    disk = log_of(20)
    firsts = segments_in(disk, EVENTS)
    hurt = EVENTS / segment_name(firsts[2])
    offset = harm(disk, hurt)
    before = all_bytes(disk)
    now_ms = START_MS + firsts[2] + 1
    report = repair(disk, EVENTS, now_ms)
    assert isinstance(report.damage, Damage)
    assert (report.damage.file, report.damage.offset) == (str(hurt), offset)
    after = all_bytes(disk)
    dropped = [segment_name(first) for first in firsts[2:]]
    assert sorted(report.set_aside) == sorted(f"{name}.damaged-1" for name in dropped)
    for name in dropped:
        assert after[f"{name}.damaged-1"] == before[name], "nothing is deleted"
    for first in firsts[:2]:
        assert after[segment_name(first)] == before[segment_name(first)]
    assert after[hurt.name].startswith(before[hurt.name][:offset])
    assert report.lost_bytes == sum(len(before[name]) for name in dropped) - offset
    assert (report.lost_from_seq, report.lost_to_seq) == (firsts[2] + 1, 20)
    log, opened = EventLog.open(EVENTS, disk)
    assert opened.tail_lost is None
    (told,) = list(log.replay(firsts[2]))
    assert told.cause.command == "log repair"
    assert told.at_ms == now_ms
    (event,) = told.events
    assert isinstance(event, LogTailLost)
    assert event.lost_bytes == report.lost_bytes
    grow(log, 3)
    log.close()
    assert verify(disk, EVENTS).sound


def test_repair_of_damage_that_no_start_would_cut_off() -> None:
    disk = FaultyDisk(Random(1))
    build(disk, EVENTS, 600)
    path = EVENTS / segment_name(1)
    offset = harm(disk, path, line=10)
    before = disk.contents(path)
    assert len(before) - offset > TAIL_BYTES
    report = repair(disk, EVENTS, START_MS)
    assert report.set_aside == (f"{path.name}.damaged-1",)
    assert disk.names(EVENTS) == [path.name, f"{path.name}.damaged-1"]
    assert disk.contents(EVENTS / report.set_aside[0]) == before
    assert report.lost_bytes == len(before) - offset
    assert verify(disk, EVENTS).records == 11


def test_repair_of_a_missing_segment() -> None:
    disk = log_of(20)
    firsts = segments_in(disk, EVENTS)
    disk.remove(EVENTS / segment_name(firsts[1]))
    report = repair(disk, EVENTS, START_MS)
    assert report.lost_from_seq == firsts[1]
    found = verify(disk, EVENTS)
    assert found.sound
    assert found.last_seq == firsts[1], "the record of the loss"


def test_repair_without_a_beginning_begins_anew() -> None:
    disk = log_of(20)
    firsts = segments_in(disk, EVENTS)
    disk.remove(EVENTS / segment_name(1))
    report = repair(disk, EVENTS, START_MS)
    assert len(report.set_aside) == len(firsts) - 1
    assert (report.lost_from_seq, report.lost_to_seq) == (1, 20)
    assert verify(disk, EVENTS).records == 1


def test_a_second_repair_takes_other_names() -> None:
    disk = log_of(20)
    for number in (1, 2):
        path = EVENTS / segment_name(1)
        harm(disk, path)
        report = repair(disk, EVENTS, START_MS)
        assert f"{path.name}.damaged-{number}" in report.set_aside
        log, _ = EventLog.open(EVENTS, disk)
        grow(log, 4)
        log.close()


def test_a_running_daemon_is_not_repaired() -> None:
    disk = log_of(20)
    log, _ = EventLog.open(EVENTS, disk)
    with pytest.raises(LogBusy):
        repair(disk, EVENTS, START_MS)
    assert verify(disk, EVENTS).sound
    log.close()


class Busy(FaultyDisk):
    """Shows half of the last line until it was looked at so often."""

    looks = 0

    def size(self, path: Path) -> int:
        whole = super().size(path)
        if path.name != segment_name(segments_in(self, EVENTS)[-1]):
            return whole
        self.looks += 1
        return whole - 30 + self.looks * 10 if self.looks < 3 else whole


def test_a_line_that_is_being_written_is_not_damage() -> None:
    disk = Busy(Random(1))
    contents = log_of(20)
    for name, data in all_bytes(contents).items():
        disk.put(EVENTS / name, data)
    found = verify(disk, EVENTS)
    assert found.sound
    assert found.records == 20
    assert disk.looks > 2


def test_a_torn_tail_is_named_as_one() -> None:
    disk = log_of(20)
    last = EVENTS / segment_name(segments_in(disk, EVENTS)[-1])
    disk.put(last, disk.contents(last)[:-5])
    found = verify(disk, EVENTS)
    assert found.torn_tail
    assert not found.sound
    assert found.records == 19
    report = repair(disk, EVENTS, START_MS)
    assert report.set_aside == (f"{last.name}.damaged-1",)
    assert verify(disk, EVENTS).sound
