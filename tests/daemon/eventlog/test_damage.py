"""Damage of every kind: an exact prefix with a report, or a refusal; never a wrong event."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from daemon.eventlog.audit import verify
from daemon.eventlog.errors import LogDamaged, LogTooNew
from daemon.eventlog.log import EventLog, OpenReport
from daemon.eventlog.opening import TAIL_BYTES
from daemon.eventlog.reader import Line
from daemon.eventlog.record import GENESIS, seal
from daemon.eventlog.segment import segment_name
from daemon.pool.messages import Cause
from tests.daemon.eventlog.samples import (
    EVENTS,
    build,
    chain_by_hand,
    flip_bit,
    grow,
    oversized_event,
    some_event,
)
from tests.fakes.disk import FaultyDisk

FIRST = EVENTS / segment_name(1)


def disk_with(contents: dict[Path, bytes]) -> FaultyDisk:
    disk = FaultyDisk(Random(1))
    for path, data in contents.items():
        disk.put(path, data)
    return disk


def built(count: int, *, segment_bytes_max: int = 1 << 20) -> tuple[dict[Path, bytes], list[Line]]:
    disk = FaultyDisk(Random(1))
    lines = build(disk, EVENTS, count, segment_bytes_max=segment_bytes_max)
    return {EVENTS / name: disk.contents(EVENTS / name) for name in disk.names(EVENTS)}, lines


def opened(disk: FaultyDisk) -> tuple[list[Line], OpenReport] | None:
    """What is read after opening; None if it was refused, and then nothing was changed."""
    before = {name: disk.contents(EVENTS / name) for name in disk.names(EVENTS)}
    try:
        log, report = EventLog.open(EVENTS, disk)
    except LogDamaged as error:
        refusal = error
        assert before == {name: disk.contents(EVENTS / name) for name in disk.names(EVENTS)}
    else:
        lines = list(log.read_after(0))
        assert [record.seq for record in log.replay()] == [line.seq for line in lines]
        log.close()
        return lines, report
    assert "mlxd log repair" in str(refusal)
    assert refusal.damage.file in str(refusal)
    assert Path(refusal.damage.file).name in before
    return None


def check_reported(disk: FaultyDisk, whole: Sequence[Line]) -> bool:
    """A changed log is an exact prefix with a report, or refused; True for a prefix."""
    found = verify(disk, EVENTS)
    assert found.damages or found.last_seq < len(whole)
    outcome = opened(disk)
    if outcome is None:
        assert found.damages
        assert not found.torn_tail
        return False
    lines, report = outcome
    assert lines == whole[: len(lines)], "a wrong event"
    assert len(lines) < len(whole)
    if found.damages:
        assert found.torn_tail
        assert report.tail_lost is not None
        assert report.tail_lost.lost_bytes > 0
    return True


def test_cut_at_every_byte() -> None:
    """The last segment of a log may end anywhere: what is whole is there, the rest is kept."""
    contents, whole = built(12, segment_bytes_max=1500)
    last = max(contents)
    data = contents[last]
    assert data.count(b"\n") > 3
    for size in range(len(data)):
        disk = disk_with({**contents, last: data[:size]})
        outcome = opened(disk)
        assert outcome is not None
        lines, report = outcome
        complete = data[:size].count(b"\n")
        assert lines == whole[: len(whole) - data.count(b"\n") + complete]
        rest = data[:size].rpartition(b"\n")[2]
        if rest:
            assert report.tail_lost is not None
            assert disk.contents(EVENTS / report.tail_lost.kept_as) == rest
            assert report.tail_lost.lost_bytes == len(rest)
        else:
            assert report.tail_lost is None


def test_an_earlier_segment_cut_at_every_byte_is_refused() -> None:
    contents, _ = built(12, segment_bytes_max=800)
    assert len(contents) > 2
    for path in sorted(contents)[:-1]:
        for size in range(len(contents[path])):
            disk = disk_with({**contents, path: contents[path][:size]})
            assert opened(disk) is None
            assert verify(disk, EVENTS).damages


def test_a_cut_log_goes_on() -> None:
    contents, whole = built(5)
    disk = disk_with({FIRST: contents[FIRST][:-1]})
    log, report = EventLog.open(EVENTS, disk)
    assert report.tail_lost is not None
    assert report.tail_lost.why == "the last line has no end"
    more = grow(log, 3)
    assert list(log.read_after(0)) == [*whole[:4], *more]
    log.close()
    assert verify(disk, EVENTS).sound
    assert disk.names(EVENTS) == [segment_name(1), f"{segment_name(1)}.torn-1"]


def flips(seed: int, count: int) -> None:
    random = Random(seed)
    contents, whole = built(25, segment_bytes_max=2500)
    big, big_whole = built_big()
    refused = 0
    for number in range(count):
        base, lines = (big, big_whole) if number % 100 == 0 else (contents, whole)
        path = random.choice(sorted(base))
        disk = disk_with({**base, path: flip_bit(base[path], random)})
        refused += not check_reported(disk, lines)
    assert 0 < refused < count


def built_big() -> tuple[dict[Path, bytes], list[Line]]:
    """A log whose one segment is longer than what a crash can tear."""
    contents, lines = built(500)
    assert len(contents[FIRST]) > TAIL_BYTES * 5 // 4
    return contents, lines


def test_flipped_bits_are_all_reported() -> None:
    flips(seed=1, count=2_000)


@pytest.mark.slow
def test_a_hundred_thousand_flipped_bits_are_all_reported() -> None:
    flips(seed=2, count=100_000)


def rejoin(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("base", ["small", "big"])
def test_deleted_doubled_and_exchanged_lines_are_seen(base: str) -> None:
    contents, whole = built(25) if base == "small" else built_big()
    lines = contents[FIRST].splitlines()
    steps = range(0, len(lines) - 1, 1 if base == "small" else 37)
    prefixes = 0
    for n in steps:
        deleted = [*lines[:n], *lines[n + 1 :]]
        doubled = [*lines[:n], lines[n], *lines[n:]]
        exchanged = [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]
        for changed in (deleted, exchanged):
            prefixes += check_reported(disk_with({FIRST: rejoin(changed)}), whole)
        found = verify(disk_with({FIRST: rejoin(doubled)}), EVENTS)
        assert [damage.seq for damage in found.damages] == [n + 2]
        assert "where record" in found.damages[0].why
        outcome = opened(disk_with({FIRST: rejoin(doubled)}))
        assert outcome is None or outcome[0] == whole[: n + 1]
    assert prefixes == 2 * len(steps) if base == "small" else 0 < prefixes < 2 * len(steps)


def test_an_edited_word_is_seen() -> None:
    contents, whole = built(9)
    edited = contents[FIRST].replace(b'"requests":5', b'"requests":9', 1)
    assert edited != contents[FIRST]
    assert check_reported(disk_with({FIRST: edited}), whole)


def test_an_edit_that_hashes_its_own_line_again_is_seen() -> None:
    """The next line still holds the old chain."""
    contents, _ = built(3)
    lines = contents[FIRST].splitlines()
    _, forged = seal(1, 1, Cause(command="forged"), (some_event(1),), GENESIS, opens_segment=True)
    found = verify(disk_with({FIRST: rejoin([forged, *lines[1:]])}), EVENTS)
    assert [damage.seq for damage in found.damages] == [2]


def test_missing_and_foreign_segments_are_seen() -> None:
    contents, whole = built(25, segment_bytes_max=800)
    paths = sorted(contents)
    assert len(paths) > 4
    for path in paths[:-1]:
        missing = {other: data for other, data in contents.items() if other != path}
        assert opened(disk_with(missing)) is None
        assert verify(disk_with(missing), EVENTS).damages
        empty = {**contents, path: b""}
        assert opened(disk_with(empty)) is None
        assert verify(disk_with(empty), EVENTS).damages
    exchanged = {**contents, paths[1]: contents[paths[2]], paths[2]: contents[paths[1]]}
    assert opened(disk_with(exchanged)) is None
    copied = {**contents, EVENTS / segment_name(500): contents[paths[1]]}
    assert opened(disk_with(copied)) is None
    assert opened(disk_with({**contents, EVENTS / "notes.jsonl": b"x"})) is not None
    del contents[paths[-1]]
    outcome = opened(disk_with(contents))
    assert outcome is not None
    assert outcome[0] == whole[: len(outcome[0])]


def test_a_segment_of_another_history_is_seen() -> None:
    """All lines hold, all numbers fit, and still it is not what followed."""
    contents, _ = built(12, segment_bytes_max=1500)
    other_disk = FaultyDisk(Random(1))
    log, _ = EventLog.open(EVENTS, other_disk, segment_bytes_max=1500)
    for number in range(1, 13):
        log.append(number, Cause(command="other", pid=10**10 + number), (some_event(number),))
        log.commit(sync=True)
    log.close()
    shared = sorted(name for name in other_disk.names(EVENTS) if EVENTS / name in contents)
    for name in shared:
        mixed = {**contents, EVENTS / name: other_disk.contents(EVENTS / name)}
        found = verify(disk_with(mixed), EVENTS)
        assert len(contents) == 1 or found.damages
        assert opened(disk_with(mixed)) is None


def test_damage_within_the_last_64_kib_is_a_torn_tail_and_before_it_is_not() -> None:
    contents, whole = built_big()
    data = contents[FIRST]
    lines = data.splitlines()
    offset = 0
    verdicts = []
    for number, line in enumerate(lines):
        damaged = data[: offset + 9] + b"#" + data[offset + 10 :]
        outcome = opened(disk_with({FIRST: damaged}))
        verdicts.append(outcome is not None)
        assert verdicts[-1] == (len(data) - offset <= TAIL_BYTES)
        if outcome is not None:
            assert outcome[0] == whole[:number]
        offset += len(line) + 1
    assert set(verdicts) == {True, False}


def test_one_torn_record_that_is_longer_than_64_kib_is_a_torn_tail() -> None:
    disk = FaultyDisk(Random(1))
    log, _ = EventLog.open(EVENTS, disk)
    whole = grow(log, 2)
    log.append(2 * 10**12, Cause(command="tick"), (oversized_event(200_000),))
    log.commit(sync=True)
    log.close()
    data = disk.contents(FIRST)
    hole = data[:100_000] + bytes(512) + data[100_512:]
    for torn in (data[:-1], data[:150_000], hole):
        outcome = opened(disk_with({FIRST: torn}))
        assert outcome is not None
        assert outcome[0] == whole
    two = data + b"x" * 70_000 + b"\n" + b"y" * 70_000
    outcome = opened(disk_with({FIRST: two}))
    assert outcome is None, "more than one record and more than a group: no crash leaves that"


def test_a_segment_of_zeros_or_noise_is_refused_or_set_aside() -> None:
    contents, whole = built(3)
    noise = Random(1).randbytes(40_000)
    for junk in (bytes(40_000), noise, b"\n" * 100, b'{"seq":4,\n' * 50):
        outcome = opened(disk_with({FIRST: contents[FIRST] + junk}))
        assert outcome is not None
        assert outcome[0] == whole
        assert outcome[1].tail_lost is not None
        assert outcome[1].tail_lost.lost_bytes == len(junk)
    assert opened(disk_with({FIRST: contents[FIRST] + bytes(3_000_000)})) is None


def test_an_intact_record_from_the_future_is_not_called_damage() -> None:
    contents, _ = built(2)
    first = contents[FIRST].splitlines()[0]
    disk = disk_with({FIRST: rejoin([first.replace(b'"v":1', b'"v":9')])})
    assert verify(disk, EVENTS).damages
    body = first[: first.rindex(b',"chain"')].replace(b'"v":1', b'"v":9')
    link = chain_by_hand(GENESIS, body + b',"chain"')
    disk = disk_with({FIRST: body + f',"chain":"{link}"}}\n'.encode()})
    log, report = EventLog.open(EVENTS, disk)
    assert report.tail_lost is None
    with pytest.raises(LogTooNew, match="version 9, and only 1"):
        list(log.replay())
    found = verify(disk, EVENTS)
    assert not found.damages
    assert not found.sound
    assert "version 9" in found.unreadable[0]


def test_history_before_a_snapshot_is_checked_when_it_is_read() -> None:
    contents, _ = built(25, segment_bytes_max=800)
    paths = sorted(contents)
    disk = disk_with(contents)
    log, _ = EventLog.open(EVENTS, disk)
    log.write_snapshot(log.position, b"state", 1)
    log.close()
    middle = contents[paths[1]]
    place = middle.index(b"\n") + 30
    disk.put(paths[1], middle[:place] + b"#" + middle[place + 1 :])
    log, report = EventLog.open(EVENTS, disk)
    assert report.snapshot is not None, "start-up does not read all of history"
    with pytest.raises(LogDamaged, match=paths[1].name):
        list(log.read_after(0))
    log.close()
    assert verify(disk, EVENTS).damages
