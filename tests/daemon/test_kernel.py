"""The one writer: what it makes visible, when, and what it does when the log refuses."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from random import Random

import anyio
import pytest
import trio
import trio.testing

from daemon.clock import Clock
from daemon.eventlog.log import EventLog
from daemon.eventlog.reader import Line
from daemon.kernel import PROBE_MS, Answer, Kernel, Subscription
from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import Busy, Idle, Pool
from tests.daemon.pool.durable import durable_part
from tests.daemon.pool.world import GB, START_MS, option
from tests.fakes.disk import Faults, FaultyDisk

pytestmark = pytest.mark.anyio

EVENTS = Path("/home/events")
LIMITS = m.Limits(budget_bytes=10 * GB)
CAUSE = m.Cause(command="test", client="test", pid=1)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Virtual time: whoever sleeps wakes as soon as nobody else has anything to do."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0.01)}


class Performed:
    """Whoever carries effects out; here they are only noted."""

    def __init__(self) -> None:
        self.effects: list[m.AnyEffect] = []

    def perform(self, effect: m.AnyEffect) -> None:
        self.effects.append(effect)


class Bench:
    """A kernel at work on a disk that can fail."""

    def __init__(self, disk: FaultyDisk, kernel: Kernel, performed: Performed) -> None:
        self.disk = disk
        self.kernel = kernel
        self.performed = performed
        self.answers: list[Answer] = []

    async def ask(self, make: Callable[[int], m.ClientCommand]) -> int:
        ticket = self.kernel.ticket(self.answers.append)
        await self.kernel.carry_out(make(ticket), CAUSE)
        return ticket

    async def load(self, number: int) -> int:
        return await self.ask(
            lambda ticket: m.Load(ticket=ticket, client="test", options=(option(number),))
        )

    async def acquire(self, number: int, wait_ms: int = 60_000) -> int:
        deadline_at_ms = self.kernel.now_ms() + wait_ms
        return await self.ask(
            lambda ticket: m.Acquire(
                ticket=ticket,
                client="test",
                options=(option(number),),
                deadline_at_ms=deadline_at_ms,
            )
        )

    async def report(self, command: m.AnyCommand) -> None:
        await self.kernel.carry_out(command, m.Cause(command="supervisor"))

    async def make_resident(self, number: int) -> str:
        await self.load(number)
        slot = self.kernel.pool.slots[f"/m{number}"]
        worker = slot.tenant.worker
        await self.report(
            m.ReportReady(worker=worker, measured_bytes=GB, load_ms=1_000, context_tokens=8192)
        )
        return worker

    def replayed(self) -> Pool:
        log, _ = EventLog.open(EVENTS, self.disk, writable=False)
        pool = Pool(limits=LIMITS)
        for record in log.replay():
            for event in record.events:
                pool = evolve(pool, event, record.at_ms)
        return pool

    def refused(self) -> list[str]:
        return [a.fault.code.value for a in self.answers if isinstance(a, m.AnswerRefused)]


@asynccontextmanager
async def working(disk: FaultyDisk) -> AsyncIterator[Bench]:
    log, _ = EventLog.open(EVENTS, disk)
    performed = Performed()
    clock = Clock(wall_s=lambda: START_MS / 1000, monotonic_s=trio.current_time)
    kernel = Kernel(Pool(limits=LIMITS), log, clock, performed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.run)
        yield Bench(disk, kernel, performed)
        tasks.cancel_scope.cancel()
    kernel.close()
    log.close()


async def test_nothing_is_done_before_the_intent_is_on_disk() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        await bench.load(0)

        spawned = [e for e in bench.performed.effects if isinstance(e, m.SpawnWorker)]
        after_power_loss = bench.disk.after_power_loss()
        log, _ = EventLog.open(EVENTS, after_power_loss, writable=False)
        (record,) = log.replay()

        assert [e.worker for e in spawned] == ["w1"]
        assert [type(e) for e in record.events] == [m.LoadStarted]
        assert record.cause == CAUSE


async def test_what_fails_to_sync_never_happened() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        bench.disk.fail_next["sync"] = 5
        await bench.load(0)

        assert bench.performed.effects == []
        assert bench.kernel.pool.slots == {}
        assert bench.refused() == ["read_only"]
        assert bench.kernel.read_only is not None


async def test_residents_serve_on_while_the_disk_is_full() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        await bench.make_resident(0)
        bench.disk.capacity_bytes = 0
        await bench.load(1)
        await bench.acquire(0)

        assert bench.refused() == ["read_only"]
        granted = [a for a in bench.answers if isinstance(a, m.AnswerGranted)]
        assert len(granted) == 1
        assert isinstance(bench.kernel.pool.slots["/m0"], Busy)

        await bench.report(m.Release(leases=(granted[0].lease,)))
        assert isinstance(bench.kernel.pool.slots["/m0"], Idle), "a release is no decision"


async def test_what_was_observed_meanwhile_is_recorded_once_there_is_room() -> None:
    with ExitStack() as stack:
        await _observe_on_a_full_disk(stack)


async def _observe_on_a_full_disk(stack: ExitStack) -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        worker = await bench.make_resident(0)
        watcher = stack.enter_context(closing(bench.kernel.subscribe()))
        bench.disk.capacity_bytes = 0
        await bench.load(1)
        await bench.report(m.ReportExit(worker=worker, signal=9))
        assert bench.kernel.pool.slots == {}
        assert "/m0" in bench.replayed().slots

        bench.disk.capacity_bytes = None
        await anyio.sleep(PROBE_MS / 1000 + 1)
        assert bench.kernel.read_only is None
        assert bench.kernel.pool.read_only is None
        assert durable_part(bench.replayed()) == durable_part(bench.kernel.pool)

        first: Line = await watcher.lines.receive()
        assert "worker.exited" in first.text
        assert first.seq == 3  # load.started and load.ready came before


async def test_a_disk_that_stays_full_is_tried_again() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        bench.disk.capacity_bytes = 0
        await bench.load(0)
        await anyio.sleep(5 * PROBE_MS / 1000)
        assert bench.kernel.read_only is not None

        bench.disk.capacity_bytes = None
        await anyio.sleep(PROBE_MS / 1000 + 1)
        await bench.load(0)
        assert bench.refused() == ["read_only"]
        assert "/m0" in bench.kernel.pool.slots


async def test_time_alone_brings_what_is_due() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        await bench.make_resident(0)
        await bench.acquire(0)
        assert len(bench.kernel.pool.leases) == 1

        await anyio.sleep(31)
        assert bench.kernel.pool.leases == {}

        await bench.acquire(3, wait_ms=5_000)
        await anyio.sleep(6)
        assert bench.refused() == ["deadline"]


async def test_the_machines_sleep_is_nobodys_wait() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        kernel = bench.kernel
        await bench.acquire(0, wait_ms=5_000)
        began_ms = kernel.now_ms()
        kernel.post(m.Release(leases=("g0.1",)), CAUSE)
        kernel.post(m.ReportClockJump(by_ms=600_000), CAUSE)
        await bench.acquire(3, wait_ms=5_000)  # by a clock that does not know of the sleep yet
        assert bench.refused() == []
        assert [w.deadline_at_ms for w in kernel.pool.waiters] == [began_ms + 605_000] * 2
        assert kernel.now_ms() == began_ms + 600_000


async def test_a_lease_for_somebody_who_has_gone_is_given_back() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        ticket = await bench.acquire(0)
        bench.kernel.forget((ticket,))
        await bench.report(
            m.ReportReady(worker="w1", measured_bytes=GB, load_ms=1, context_tokens=1)
        )
        while bench.kernel.pool.leases:
            await bench.kernel.changed()
        assert bench.answers == [a for a in bench.answers if isinstance(a, m.AnswerProgress)]
        assert isinstance(bench.kernel.pool.slots["/m0"], Idle)


async def test_commands_that_wait_together_are_committed_together() -> None:
    async with working(FaultyDisk(Random(1))) as bench:
        await bench.make_resident(0)
        syncs_before = bench.disk.operations
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                pin = m.Pin(ticket=0, client="test", key=f"/{number}", name=str(number))
                tasks.start_soon(bench.report, pin)
        assert len(bench.kernel.pool.pins) == 20
        assert bench.disk.operations - syncs_before <= 6, "one write and one sync a batch"


async def test_a_watcher_that_falls_behind_is_ended_and_others_are_not() -> None:
    async with working(FaultyDisk(Random(1), faults=Faults(short_write=0.5))) as bench:
        with closing(bench.kernel.subscribe()) as slow, closing(bench.kernel.subscribe()) as quick:
            await _pin_and_watch(bench, slow, quick)


async def _pin_and_watch(bench: Bench, slow: Subscription, quick: Subscription) -> None:
    for number in range(1100):
        verb = m.Pin if number % 2 == 0 else m.Unpin
        await bench.report(verb(ticket=0, client="test", key="/k", name="k"))
        line = await quick.lines.receive()
        assert line.seq == number + 1
    assert len([line async for line in slow.lines]) == 1024
