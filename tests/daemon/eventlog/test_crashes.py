"""Crash anywhere: what was synced is there, in order, and nothing that was never said."""

import contextlib
import errno
from random import Random

import msgspec
import pytest

from daemon.eventlog.audit import repair, verify
from daemon.eventlog.errors import LogWriteFailed
from daemon.eventlog.log import EventLog
from daemon.eventlog.reader import Line
from daemon.eventlog.record import Record
from daemon.eventlog.segment import segment_name, segments_in
from daemon.pool.messages import Cause
from tests.daemon.eventlog.samples import EVENTS, START_MS, build, oversized_event, some_event
from tests.fakes.disk import Crash, Faults, FaultyDisk


class Life:
    """One log through crashes, and what its user was told.

    Attributes:
        said: Lines of commits that returned, in order.
        synced: How many of them a loss of power must leave.
        pending: What the commit in progress holds; it may be found, in part, or not.
    """

    def __init__(self, seed: int, *, faults: Faults | None = None) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.disk = FaultyDisk(self.random)
        self.said: list[str] = []
        self.synced = 0
        self.pending: list[str] = []

    def run(self, lives: int) -> None:
        for _ in range(lives):
            self.disk.crash_at = self.disk.operations + self.random.randint(1, 60)
            if self.faults:
                self.disk.faults = self.faults
            with contextlib.suppress(Crash):
                self.live()
            self.disk.faults = Faults()
            power = self.random.random() < 0.7
            self.disk = self.disk.after_power_loss() if power else self.disk.after_kill()
            self.check(self.synced if power else len(self.said))

    def live(self) -> None:
        bound = self.random.choice((1, 700, 3000, 1 << 20))
        try:
            log, report = EventLog.open(EVENTS, self.disk, segment_bytes_max=bound)
        except (LogWriteFailed, OSError):
            return
        self.synced = len(self.said)
        assert report.warnings == ()
        while True:
            try:
                if self.random.random() < 0.15 and log.position.seq:
                    state = str(log.position.seq).encode()
                    log.write_snapshot(log.position, state, 1)
                    self.synced = len(self.said)
                self.commit(log)
            except LogWriteFailed as failure:
                if not failure.retryable:
                    log.rollback()
                    return
                log.probe()

    def commit(self, log: EventLog) -> None:
        records: list[Record] = []
        for number in range(self.random.randint(1, 5)):
            at_ms = START_MS + len(self.said) + number
            big = self.random.random() < 0.1
            event = (
                oversized_event(self.random.choice((1000, 20_000)))
                if big
                else some_event(self.random.randrange(10**6))
            )
            records.append(log.append(at_ms, Cause(command="x"), (event,)))
        self.pending = [told(record) for record in records]
        sync = self.random.random() < 0.5
        try:
            lines = log.commit(sync=sync)
        except LogWriteFailed as failure:
            if failure.retryable:
                log.rollback()
                if not log._cut_due:
                    self.pending = []
            raise
        assert [line.seq for line in lines] == [record.seq for record in records]
        self.said += self.pending
        self.pending = []
        if sync:
            self.synced = len(self.said)

    def check(self, owed: int) -> None:
        """A prefix of what was said (and then of what was being said), no less than owed."""
        log, report = EventLog.open(EVENTS, self.disk)
        found = [told(record) for record in log.replay()]
        possible = self.said + self.pending
        assert found == possible[: len(found)], "a wrong record, or a wrong order"
        assert len(found) >= owed, "what was synced is lost"
        if report.snapshot is not None:
            assert report.snapshot.state == str(report.replay_after).encode()
        assert all("records were lost" not in warning for warning in report.warnings)
        log.close()
        assert verify(self.disk, EVENTS).sound
        self.said, self.synced, self.pending = found, len(found), []


def told(record: Record) -> str:
    """A record by its content, as its user knows it."""
    return msgspec.json.encode((record.seq, record.at_ms, record.events)).decode()


@pytest.mark.parametrize("seed", range(60))
def test_crash_anywhere(seed: int) -> None:
    Life(seed).run(lives=12)


@pytest.mark.parametrize("seed", range(60))
def test_crash_anywhere_on_a_disk_that_fails(seed: int) -> None:
    faults = Faults(
        short_write=0.2, no_space=0.05, write_error=0.01, sync_error=0.01, rename_error=0.05
    )
    Life(seed, faults=faults).run(lives=12)


@pytest.mark.slow
def test_crash_anywhere_for_long() -> None:
    for seed in range(1000, 2000):
        faults = Faults(short_write=0.2, no_space=0.05, sync_error=0.01, rename_error=0.05)
        Life(seed, faults=faults if seed % 2 else None).run(lives=12)


def test_a_repair_that_is_cut_short_can_be_run_again() -> None:
    """Crash before each of its operations in turn: the good part is never lost."""
    for operation in range(1, 60):
        disk = FaultyDisk(Random(operation))
        whole: list[Line] = build(disk, EVENTS, 20, segment_bytes_max=1000)
        segments = segments_in(disk, EVENTS)
        hurt = EVENTS / segment_name(segments[1])
        data = disk.contents(hurt)
        place = data.index(b"\n") + 30
        disk.put(hurt, data[:place] + b"#" + data[place + 1 :])
        good = segments[1]
        disk.crash_at = disk.operations + operation
        try:
            repair(disk, EVENTS, START_MS)
        except Crash:
            disk = disk.after_power_loss()
            if not verify(disk, EVENTS).sound:
                repair(disk, EVENTS, START_MS)
        else:
            break
        log, _ = EventLog.open(EVENTS, disk)
        lines = list(log.read_after(0))
        assert lines[:good] == whole[:good]
        assert len(lines) in (good, good + 1), "the loss is recorded, or was about to be"
        log.close()
    assert 8 < operation < 59, "every operation had its turn"


def test_the_faults_do_happen() -> None:
    """The property above is empty if nothing ever fails."""
    torn = failed = 0
    for seed in range(40):
        disk = FaultyDisk(Random(seed))
        log, _ = EventLog.open(EVENTS, disk)
        for number in range(6):
            log.append(START_MS, Cause(command="x"), (some_event(number),))
            log.append(START_MS, Cause(command="x"), (oversized_event(2000),))
            log.commit(sync=False)
        _, report = EventLog.open(EVENTS, disk.after_power_loss())
        torn += report.tail_lost is not None
        disk.fail_next["sync"] = errno.EIO
        log.append(START_MS, Cause(command="x"), (some_event(0),))
        with pytest.raises(LogWriteFailed):
            log.commit(sync=True)
        failed += 1
    assert torn > 10
    assert failed == 40
