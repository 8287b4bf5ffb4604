"""The open log: groups, segments, refusals of the disk, and coming back."""

import errno
import json
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.eventlog.disk import Disk, OsDisk
from daemon.eventlog.errors import LogBusy, LogWriteFailed
from daemon.eventlog.log import EventLog
from daemon.eventlog.opening import TAIL_BYTES
from daemon.eventlog.reader import Line
from daemon.eventlog.record import GENESIS, Record
from daemon.eventlog.segment import segment_name, segments_in
from daemon.eventlog.snapshot import Position
from daemon.pool.messages import Cause, WorkerSpawned
from tests.daemon.eventlog.samples import (
    EVENTS,
    START_MS,
    build,
    chain_by_hand,
    grow,
    oversized_event,
    some_event,
)
from tests.fakes.disk import FaultyDisk

TICK = Cause(command="tick")


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk(Random(1))


def append(log: EventLog, count: int = 1) -> list[Record]:
    made: list[Record] = []
    for _ in range(count):
        number = log.position.seq + len(made) + 1
        made.append(log.append(START_MS + number, TICK, (some_event(number),)))
    return made


def reopened(disk: Disk, folder: Path = EVENTS) -> EventLog:
    log, report = EventLog.open(folder, disk)
    assert report.tail_lost is None
    return log


def test_records_are_there_after_reopening(tmp_path: Path) -> None:
    lines = build(OsDisk(), tmp_path / "events", 10)
    log, report = EventLog.open(tmp_path / "events", OsDisk())
    assert list(log.read_after(0)) == lines
    assert [record.seq for record in log.replay()] == list(range(1, 11))
    assert (report.end.seq, report.end.at_ms) == (10, START_MS + 10)
    assert report.end == log.position
    assert (report.snapshot, report.tail_lost, report.warnings) == (None, None, ())
    log.close()


def test_the_files_are_json_lines_whose_chain_anybody_can_check(tmp_path: Path) -> None:
    build(OsDisk(), tmp_path, 60, segment_bytes_max=2000)
    paths = sorted(tmp_path.glob("*.jsonl"))
    assert len(paths) > 3
    chain = "0" * 32
    seq = 0
    for path in paths:
        assert path.name == f"{seq + 1:016d}.jsonl"
        for number, line in enumerate(path.read_bytes().splitlines()):
            seq += 1
            raw = json.loads(line)
            assert raw["seq"] == seq
            assert raw.get("prev") == (chain if number == 0 else None)
            chain = chain_by_hand(chain, line)
            assert raw["chain"] == chain
    assert seq == 60


def test_nothing_is_seen_before_it_is_committed(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    record = log.append(START_MS, TICK, (some_event(1),))
    assert (record.seq, log.position.seq) == (1, 0)
    assert list(log.read_after(0)) == []
    assert list(log.replay()) == []
    lines = log.commit(sync=True)
    assert [line.seq for line in lines] == [1]
    assert list(log.read_after(0)) == list(lines)
    assert list(log.replay()) == [record]
    assert log.position == Position(seq=1, at_ms=START_MS, chain=record.chain)
    assert log.commit(sync=True) == ()


def test_a_commit_without_sync_survives_a_kill_and_one_with_sync_a_loss_of_power() -> None:
    for seed in range(20):
        disk = FaultyDisk(Random(seed))
        log, _ = EventLog.open(EVENTS, disk)
        append(log, 3)
        log.commit(sync=True)
        append(log, 2)
        log.commit(sync=False)
        lost, _ = EventLog.open(EVENTS, disk.after_power_loss())
        assert lost.position.seq in (3, 4, 5)
        log, _ = EventLog.open(EVENTS, disk.after_kill())
        assert log.position.seq == 5
        lost, _ = EventLog.open(EVENTS, disk.after_power_loss())
        assert lost.position.seq == 5, "what a new daemon believes was synced when it opened"


def test_rolling_back_gives_number_and_chain_back(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    append(log)
    log.commit(sync=True)
    before = log.position
    dropped = append(log, 2)
    assert log.rollback() == 2
    assert log.position == before
    assert log.rollback() == 0
    (again, _) = append(log, 2)
    assert again == dropped[0]
    log.commit(sync=True)
    log.close()
    assert reopened(disk).position.seq == 3


def test_a_segment_ends_at_a_commit_once_it_is_big_enough(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=100)
    append(log, 5)
    log.commit(sync=True)
    assert segments_in(disk, EVENTS) == (1,)
    append(log, 5)
    log.rollback()
    assert segments_in(disk, EVENTS) == (1,)
    first, second = append(log, 2)
    assert (first.prev, second.prev) == (log.position.chain, None)
    log.commit(sync=True)
    assert segments_in(disk, EVENTS) == (1, 6)
    log.close()
    assert [record.seq for record in reopened(disk).replay()] == list(range(1, 8))


def test_unsynced_bytes_never_pass_what_a_torn_tail_may_be(disk: FaultyDisk) -> None:
    """Else a loss of power would leave damage that looks like more than a crash."""
    log, _ = EventLog.open(EVENTS, disk)
    for size in (10, 30_000, 30_000, 30_000, 200_000, 10, 60_000, 60_000):
        log.append(START_MS, TICK, (oversized_event(size),))
        if size != 60_000:
            log.commit(sync=False)
        for _ in range(5):
            lost, report = EventLog.open(EVENTS, disk.after_power_loss())
            held = size + 1000 if size > TAIL_BYTES else TAIL_BYTES
            assert report.tail_lost is None or report.tail_lost.lost_bytes <= held
            assert lost.position.seq <= log.position.seq
    log.commit(sync=True)
    assert reopened(disk.after_power_loss()).position.seq == 8


def test_one_writes(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    with pytest.raises(LogBusy, match="stop it first"):
        EventLog.open(EVENTS, disk)
    append(log)
    log.commit(sync=True)
    reader, report = EventLog.open(EVENTS, disk, writable=False)
    assert report.end.seq == 1
    assert reader.read_only == "opened for reading"
    with pytest.raises(LogWriteFailed):
        append(reader)
    log.close()
    reopened(disk).close()


def test_a_closed_log_refuses(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    log.close()
    log.close()
    for refused in (lambda: append(log), lambda: log.commit(sync=True)):
        with pytest.raises(LogWriteFailed, match="closed"):
            refused()
    assert not log.probe()


def test_what_would_not_read_back_is_refused_and_changes_nothing(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    nan = WorkerSpawned(worker="w", pid=1, start_time=float("nan"), boot_id="b")
    surrogate = WorkerSpawned(worker="\udcff", pid=1, start_time=0.0, boot_id="b")
    for event in (nan, surrogate, oversized_event(1_000_000)):
        with pytest.raises(ValueError, match=r"."):
            log.append(START_MS, TICK, (event,))
    append(log)
    log.commit(sync=True)
    assert log.position.seq == 1
    log.close()
    assert reopened(disk).position.seq == 1


def test_time_does_not_go_back(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    log.append(START_MS, TICK, (some_event(1),))
    with pytest.raises(AssertionError, match="time went back"):
        log.append(START_MS - 1, TICK, (some_event(1),))


# --- no space ------------------------------------------------------------------------------


def full_disk(room_bytes: int) -> tuple[FaultyDisk, EventLog]:
    """A log of three records on a disk with so much room left."""
    disk = FaultyDisk(Random(1))
    log, _ = EventLog.open(EVENTS, disk)
    grow(log, 3)
    disk.capacity_bytes = disk.size(EVENTS / segment_name(1)) + room_bytes
    return disk, log


@pytest.mark.parametrize("room_bytes", [0, 1, 100, 250])
def test_no_space_leaves_the_file_as_it_was_and_the_records_held(room_bytes: int) -> None:
    disk, log = full_disk(room_bytes)
    path = EVENTS / segment_name(1)
    before = disk.contents(path)
    append(log, 3)
    for _ in range(2):
        with pytest.raises(LogWriteFailed, match="free space") as failure:
            log.commit(sync=True)
        assert (failure.value.errno, failure.value.retryable) == (errno.ENOSPC, True)
        assert disk.contents(path) == before
        assert disk.after_power_loss().contents(path) == before, "the cut was synced"
        assert log.blocked == "No space left on device"
        assert log.position.seq == 3
        assert [line.seq for line in log.read_after(0)] == [1, 2, 3]
    assert not log.probe()
    assert disk.names(EVENTS) == [path.name], "the probe takes its file away"
    disk.capacity_bytes = None
    assert log.probe()
    assert log.blocked is None
    assert [line.seq for line in log.commit(sync=True)] == [4, 5, 6]
    log.close()
    assert reopened(disk).position.seq == 6


def test_after_no_space_other_records_may_take_the_place() -> None:
    disk, log = full_disk(100)
    append(log, 2)
    with pytest.raises(LogWriteFailed):
        log.commit(sync=True)
    log.rollback()
    disk.capacity_bytes = None
    other = log.append(START_MS + 9, Cause(command="other"), (some_event(9),))
    assert other.seq == 4
    log.commit(sync=True)
    log.close()
    assert [record.cause.command for record in reopened(disk).replay(3)] == ["other"]


def test_no_space_for_a_new_segment(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=100)
    grow(log, 1)
    append(log)
    disk.fail_next["open"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed) as failure:
        log.commit(sync=True)
    assert failure.value.retryable
    disk.fail_next["write"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed):
        log.commit(sync=True)
    assert segments_in(disk, EVENTS) == (1, 2)
    assert disk.size(EVENTS / segment_name(2)) == 0
    log.rollback()
    (record,) = append(log)
    assert record.prev == log.position.chain
    log.commit(sync=True)
    log.close()
    assert reopened(disk).position.seq == 2


def test_an_empty_last_segment_is_taken_up_again(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=100)
    grow(log, 1)
    append(log)
    disk.fail_next["write"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed):
        log.commit(sync=True)
    log, report = EventLog.open(EVENTS, disk.after_kill(), segment_bytes_max=100)
    assert report.end.seq == 1
    grow(log, 2)
    assert segments_in(disk, EVENTS) == (1, 2, 3)
    log.close()
    assert reopened(disk).position.seq == 3


def test_a_cut_that_fails_is_done_before_anything_else(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    grow(log, 3)
    path = EVENTS / segment_name(1)
    before = disk.contents(path)
    disk.capacity_bytes = len(before) + 50
    append(log)
    disk.fail_next["truncate"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed) as failure:
        log.commit(sync=True)
    assert failure.value.retryable
    assert len(disk.contents(path)) == len(before) + 50
    log.rollback()
    disk.capacity_bytes = None
    log.append(START_MS + 9, Cause(command="other"), (some_event(1),))
    log.commit(sync=True)
    assert disk.contents(path).startswith(before)
    log.close()
    assert [record.cause.command for record in reopened(disk).replay(3)] == ["other"]


# --- a failing disk --------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_an_input_output_error_is_not_retried(disk: FaultyDisk, operation: str) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    grow(log, 3)
    append(log)
    disk.fail_next["write" if operation == "write" else "sync"] = errno.EIO
    with pytest.raises(LogWriteFailed, match="check the disk") as failure:
        log.commit(sync=True)
    assert not failure.value.retryable
    assert log.read_only == "Input/output error"
    done = disk.operations
    for refused in (
        lambda: log.commit(sync=True),
        lambda: append(log),
        lambda: log.write_snapshot(log.position, b"", 1),
    ):
        with pytest.raises(LogWriteFailed) as failure:
            refused()
        assert not failure.value.retryable
    assert not log.probe()
    assert disk.operations == done, "the disk was left alone"
    assert [line.seq for line in log.read_after(0)] == [1, 2, 3]
    assert log.rollback() == 1
    assert log.position.seq == 3


@pytest.mark.parametrize("operation", ["sync", "sync_folder"])
def test_an_input_output_error_while_a_segment_begins(disk: FaultyDisk, operation: str) -> None:
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=100)
    grow(log, 1, sync=False)
    append(log)
    disk.fail_next["sync" if operation == "sync" else "sync_folder"] = errno.EIO
    with pytest.raises(LogWriteFailed) as failure:
        log.commit(sync=True)
    assert not failure.value.retryable
    assert log.read_only is not None
    assert [line.seq for line in log.read_after(0)] == [1]


def test_a_failed_sync_while_cutting_back_is_the_end(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    grow(log, 1)
    append(log)
    disk.fail_next = {"write": errno.ENOSPC, "sync": errno.EIO}
    with pytest.raises(LogWriteFailed) as failure:
        log.commit(sync=True)
    assert not failure.value.retryable
    assert log.read_only is not None


def test_a_torn_tail_that_cannot_be_kept_is_not_cut(disk: FaultyDisk) -> None:
    build(disk, EVENTS, 3)
    path = EVENTS / segment_name(1)
    torn = disk.contents(path) + b'{"seq":4,'
    disk.put(path, torn)
    disk.fail_next["open"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed):
        EventLog.open(EVENTS, disk)
    assert disk.contents(path) == torn
    log, report = EventLog.open(EVENTS, disk)
    assert report.tail_lost is not None
    assert (report.tail_lost.lost_bytes, log.position.seq) == (9, 3)
    assert disk.contents(EVENTS / report.tail_lost.kept_as) == b'{"seq":4,'


# --- snapshots -------------------------------------------------------------------------------


def test_replay_begins_at_the_newest_snapshot(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=600)
    grow(log, 10)
    log.write_snapshot(log.position, b"after ten", 1)
    grow(log, 5)
    log.close()
    log, report = EventLog.open(EVENTS, disk)
    assert report.snapshot is not None
    assert report.snapshot.state == b"after ten"
    assert report.replay_after == 10
    assert [record.seq for record in log.replay(report.replay_after)] == [11, 12, 13, 14, 15]
    assert [record.seq for record in log.replay()] == list(range(1, 16)), "history is there too"


def test_a_snapshot_is_never_ahead_of_the_log_that_is_durable() -> None:
    for seed in range(30):
        disk = FaultyDisk(Random(seed))
        log, _ = EventLog.open(EVENTS, disk)
        grow(log, 4, sync=False)
        log.write_snapshot(log.position, b"four", 1)
        _, report = EventLog.open(EVENTS, disk.after_power_loss())
        assert report.end.seq == 4
        assert report.snapshot is not None


def test_a_snapshot_that_finds_no_space_does_not_stop_the_log(disk: FaultyDisk) -> None:
    log, _ = EventLog.open(EVENTS, disk)
    grow(log, 4)
    disk.fail_next["write"] = errno.ENOSPC
    with pytest.raises(LogWriteFailed, match="snapshot"):
        log.write_snapshot(log.position, b"four", 1)
    assert disk.names(EVENTS) == [segment_name(1)]
    grow(log, 1)
    assert log.read_only is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_life_of_a_log_reads_as_it_was_written(data: st.DataObject) -> None:
    """Appends, groups, rollbacks, snapshots, reopenings: the lines are always the same."""
    disk = FaultyDisk(Random(0))
    bound = data.draw(st.sampled_from([1, 400, 2000, 1 << 20]))
    log, _ = EventLog.open(EVENTS, disk, segment_bytes_max=bound)
    model: list[Line] = []
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["commit", "rollback", "snapshot", "reopen"])):
            case "commit":
                append(log, data.draw(st.integers(1, 6)))
                model += log.commit(sync=data.draw(st.booleans()))
            case "rollback":
                append(log, data.draw(st.integers(1, 3)))
                log.rollback()
            case "snapshot" if model:
                log.write_snapshot(log.position, str(len(model)).encode(), 1)
            case _:
                log.close()
                log, report = EventLog.open(EVENTS, disk, segment_bytes_max=bound)
                assert report.warnings == ()
                if report.snapshot:
                    assert report.snapshot.state == str(report.replay_after).encode()
        assert list(log.read_after(0)) == model
        after = data.draw(st.integers(0, len(model)))
        assert list(log.read_after(after)) == model[after:]
        assert [record.seq for record in log.replay(after)] == list(
            range(after + 1, len(model) + 1)
        )
    chain = GENESIS
    for line in model:
        chain = chain_by_hand(chain, line.text.encode())
        assert json.loads(line.text)["chain"] == chain


def test_readers_in_other_threads_see_whole_lines_in_order(tmp_path: Path) -> None:
    log, _ = EventLog.open(tmp_path / "events", OsDisk(), segment_bytes_max=5000)
    done = threading.Event()
    problems: list[str] = []
    seen = [0, 0]

    def watch(reader: int) -> None:
        last_look = False
        while not last_look:
            last_look = done.is_set()
            for line in log.read_after(seen[reader]):
                if json.loads(line.text)["seq"] != line.seq or line.seq != seen[reader] + 1:
                    problems.append(line.text)
                    return
                seen[reader] = line.seq

    threads = [threading.Thread(target=watch, args=(reader,)) for reader in range(2)]
    for thread in threads:
        thread.start()
    try:
        grow(log, 300, group=3, sync=False)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert seen == [300, 300]
    log.close()
