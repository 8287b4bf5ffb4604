"""The shipped kernel, log and supervisor in virtual time, on a disk and workers that fail.

Every run is a function of its seed: virtual clock, seeded scheduling, seeded faults.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import trio
import trio.testing

from daemon.clock import Clock
from daemon.eventlog.errors import LogError
from daemon.eventlog.log import EventLog, OpenReport
from daemon.kernel import Answer, Kernel
from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import Idle, Pool, durable_part
from daemon.supervisor.supervisor import Supervisor, open_supervisor_on
from daemon.wire import data as d
from tests.daemon.pool.world import GB, START_MS, option
from tests.fakes.disk import Crash, FaultyDisk
from tests.sim.host import SimHost, Violation

EVENTS = Path("/home/events")
BUDGET_BYTES = 10 * GB
LIMITS = m.Limits(budget_bytes=BUDGET_BYTES, loads_max=2, ttl_ms=120_000)
CAUSE = m.Cause(command="test", client="sim", pid=1)
TERMINAL = m.AnswerGranted | m.AnswerLoaded | m.AnswerUnloaded | m.AnswerDone | m.AnswerRefused
LIFE_STEPS_MAX = 60
QUIET_S = 3_000.0


class Outcome(msgspec.Struct):
    """What a simulation did."""

    steps: int = 0
    daemons: int = 0
    power_losses: int = 0
    granted: int = 0
    refused: int = 0
    served: int = 0
    workers: int = 0
    records: int = 0


class SimDaemon:
    """One run of the daemon."""

    def __init__(self, kernel: Kernel, supervisor: Supervisor, log: EventLog) -> None:
        self.kernel = kernel
        self.supervisor = supervisor
        self.log = log
        self.open_tickets: set[int] = set()
        self.about_pins: Counter[str] = Counter()

    async def ask(self, make: Callable[[int], m.ClientCommand]) -> Answer:
        """The terminal answer to a command."""
        answered = trio.Event()
        answers: list[Answer] = []

        def on_answer(answer: Answer) -> None:
            if isinstance(answer, TERMINAL):
                if answers:
                    raise Violation(f"a second answer: {answer}")
                answers.append(answer)
                answered.set()

        ticket = self.kernel.ticket(on_answer)
        self.open_tickets.add(ticket)
        await self.kernel.send(make(ticket), CAUSE)
        await answered.wait()
        self.open_tickets.discard(ticket)
        return answers[0]


def replay(log: EventLog) -> tuple[Pool, set[str], set[str]]:
    """The pool that the log holds, and the workers that it knows as intended and spawned."""
    pool = Pool(limits=LIMITS)
    intended: set[str] = set()
    spawned: set[str] = set()
    for record in log.replay():
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
            if isinstance(event, m.LoadStarted):
                intended.add(event.worker)
            elif isinstance(event, m.WorkerSpawned):
                spawned.add(event.worker)
    return pool, intended, spawned


class Simulation:
    """A machine, a disk, and one daemon after another."""

    def __init__(self, seed: int, host: SimHost, tasks: trio.Nursery) -> None:
        self.random = Random(seed)
        self.disk = FaultyDisk(self.random)
        self.host = host
        self.tasks = tasks
        self.outcome = Outcome()
        self.pins: dict[str, bool | None] = {}
        """As acknowledged; None while nobody knows."""

    async def run(self, steps: int) -> None:
        while self.outcome.steps < steps:
            await self._one_daemon(min(steps - self.outcome.steps, LIFE_STEPS_MAX))
        self.host.faults = False
        self.disk.capacity_bytes = None
        async with self.daemon() as daemon:
            await self._come_to_rest(daemon)
            self.outcome.records = daemon.log.position.seq

    async def _one_daemon(self, steps: int) -> None:
        """A daemon's life: some steps, then one of the ways to end."""
        steps = self.random.randint(1, steps)
        if self.random.random() < 0.2:
            self.disk.crash_at = self.disk.operations + self.random.randint(1, 200)
        try:
            async with self.daemon() as daemon:
                for _ in range(steps):
                    await self._step(daemon)
                    if daemon.kernel.read_only is not None and self.random.random() < 0.2:
                        break
                if self.random.random() < 0.2 and daemon.kernel.read_only is None:
                    await self._stop(daemon)
        except BaseExceptionGroup as group:
            crashes, rest = group.split((Crash, LogError))
            if rest is not None or crashes is None:
                raise
        except (Crash, LogError):
            pass  # the daemon ends as its process would
        self.disk.capacity_bytes = None
        if self.random.random() < 0.3:
            self.host.lose_power()
            self.disk = self.disk.after_power_loss()
            self.outcome.power_losses += 1
        else:
            self.disk = self.disk.after_kill()

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[SimDaemon]:
        """As :mod:`daemon.app` puts it together; leaving the block is a crash."""
        self.outcome.daemons += 1
        with ExitStack() as at_last:
            log, report = EventLog.open(EVENTS, self.disk)
            at_last.callback(log.close)
            async with self._opened(log, report, at_last) as daemon:
                yield daemon

    @asynccontextmanager
    async def _opened(
        self, log: EventLog, report: OpenReport, at_last: ExitStack
    ) -> AsyncIterator[SimDaemon]:
        pool, intended, spawned = replay(log)
        if not self.host.spawned <= intended:
            raise Violation(f"no intent on disk: {self.host.spawned - intended}")
        if not self.host.begun <= spawned:
            raise Violation(f"loaded before it was recorded: {self.host.begun - spawned}")
        self._check_pins(pool)
        clock = Clock(
            report.end.at_ms,
            wall_s=lambda: START_MS / 1000 + trio.current_time(),
            monotonic_s=trio.current_time,
        )
        async with open_supervisor_on(self.host, clock.now_ms) as supervisor:
            kernel = Kernel(pool, log, clock, supervisor)
            at_last.callback(kernel.close)
            supervisor.attach(kernel.send)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.run)
                left = kernel.pool
                start = m.Start(
                    pid=1,
                    boot_id=self.host.boot_id,
                    version="sim",
                    budget_bytes=BUDGET_BYTES,
                    memory_total_bytes=2 * BUDGET_BYTES,
                    tail_lost_bytes=report.tail_lost.lost_bytes if report.tail_lost else 0,
                    tail_kept_as=report.tail_lost.kept_as if report.tail_lost else "",
                )
                await kernel.carry_out(start, CAUSE)
                await supervisor.adopt(left, left.generation + 1)
                yield SimDaemon(kernel, supervisor, log)
                tasks.cancel_scope.cancel()

    def _check_pins(self, pool: Pool) -> None:
        for key, pinned in self.pins.items():
            if pinned is not None and (key in pool.pins) != pinned:
                raise Violation(f"an acknowledged pin of {key} was lost")
        self.pins = {key: key in pool.pins for key in self.pins}

    # --- steps --------------------------------------------------------------------------

    async def _step(self, daemon: SimDaemon) -> None:
        self.outcome.steps += 1
        number = self.random.randrange(4)
        action = self.random.choices(
            (
                self._use,
                self._load,
                self._unload,
                self._pin,
                self._forgive,
                self._misbehave,
                self._fill_disk,
            ),
            (8, 2, 2, 1, 1, 2, 0.3),
        )[0]
        if action in (self._misbehave, self._fill_disk):
            await action(daemon, number)
        else:
            self.tasks.start_soon(self._client, action, daemon, number)
        await trio.sleep(self.random.choice((0.0, 0.01, 0.5, 3.0, 15.0, 60.0)))
        self.host.check_memory(BUDGET_BYTES)

    async def _client(
        self, action: Callable[[SimDaemon, int], Awaitable[None]], daemon: SimDaemon, number: int
    ) -> None:
        try:
            await action(daemon, number)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # its daemon is gone

    async def _use(self, daemon: SimDaemon, number: int) -> None:
        deadline_at_ms = daemon.kernel.now_ms() + self.random.choice((100, 20_000, 200_000))
        options = (option(number),) if self.random.random() < 0.8 else (option(number), option(0))
        answer = await daemon.ask(
            lambda ticket: m.Acquire(
                ticket=ticket, client="app", options=options, deadline_at_ms=deadline_at_ms
            )
        )
        if not isinstance(answer, m.AnswerGranted):
            self.outcome.refused += 1
            return
        self.outcome.granted += 1
        worker = self.host.worker(answer.worker)
        if worker is not None:
            await trio.sleep(self.random.random() * 0.1)
            self.outcome.served += await worker.serve(answer.lease, self.random.random() * 40)
        await daemon.kernel.send(m.Release(leases=(answer.lease,)), CAUSE)

    async def _load(self, daemon: SimDaemon, number: int) -> None:
        await daemon.ask(
            lambda ticket: m.Load(ticket=ticket, client="person", options=(option(number),))
        )

    async def _unload(self, daemon: SimDaemon, number: int) -> None:
        """By request a pin goes with it."""
        key, name = f"/m{number}", f"m{number}"
        await self._about_pin(
            daemon, key, lambda t: m.Unload(ticket=t, client="person", key=key, name=name)
        )

    async def _pin(self, daemon: SimDaemon, number: int) -> None:
        if number > 1:
            number = 0  # the big ones pinned together would leave no room for anything
        key, name = f"/m{number}", f"m{number}"
        kind = self.random.choice((m.Pin, m.Unpin))
        await self._about_pin(
            daemon, key, lambda t: kind(ticket=t, client="person", key=key, name=name)
        )

    async def _forgive(self, daemon: SimDaemon, number: int) -> None:
        """Models crash so often here that without this none would be left to try."""
        key, name = f"/m{number}", f"m{number}"
        await daemon.ask(lambda t: m.Unquarantine(ticket=t, client="person", key=key, name=name))

    async def _about_pin(
        self, daemon: SimDaemon, key: str, make: Callable[[int], m.ClientCommand]
    ) -> None:
        """Nobody knows what is pinned while anything about it is under way."""
        daemon.about_pins[key] += 1
        self.pins[key] = None
        await daemon.ask(make)
        daemon.about_pins[key] -= 1
        if not daemon.about_pins[key] and daemon.kernel.read_only is None:
            # After a failed sync nobody knows whether what was refused is on disk all the same.
            self.pins[key] = key in daemon.kernel.pool.pins

    async def _misbehave(self, daemon: SimDaemon, number: int) -> None:
        living = self.host.living()
        if not living:
            return
        worker = self.random.choice(living)
        match self.random.randrange(5):
            case 0:
                worker.end(-9)
            case 1:
                worker.hung = True
            case 2:
                worker.say(d.Bye(reason="of its own accord"))
                worker.end(0)
            case 3:
                worker.say(d.Measured(measured_bytes=self.random.choice((0, GB))))
            case _:
                self._lie(worker)

    def _lie(self, worker: Any) -> None:
        """Reports that do not fit; what it serves is true, or nothing could protect it."""
        lies: list[d.LinkReport] = [
            d.Ready(measured_bytes=-1, load_ms=-1, context_tokens=0),
            d.LoadProgress(done_bytes=-5, total_bytes=0),
            d.StillBusy(running=0),
            d.Running(running=len(worker.requests), leases=("g9.9",)),
        ]
        lie = self.random.choice(lies)
        if not (isinstance(lie, d.Ready) and worker.phase == "loading"):
            worker.say(lie)

    async def _fill_disk(self, daemon: SimDaemon, number: int) -> None:
        self.disk.capacity_bytes = 0 if self.disk.capacity_bytes is None else None
        if self.random.random() < 0.1:
            self.disk.fail_next["sync"] = 5

    # --- ends -----------------------------------------------------------------------------

    async def _stop(self, daemon: SimDaemon) -> None:
        await daemon.kernel.send(m.Stop(reason="SIGTERM"), CAUSE)
        with trio.move_on_after(50):
            await daemon.kernel.emptied()
        await daemon.supervisor.flush()
        await daemon.kernel.carry_out(m.Stopped(reason="SIGTERM"), CAUSE)

    async def _come_to_rest(self, daemon: SimDaemon) -> None:
        """Nobody asks any more, and everything ends: answers, loads, drains, processes."""
        kernel = daemon.kernel
        with trio.move_on_after(QUIET_S):
            while not self._at_rest(daemon):
                await trio.sleep(5)
                self.host.check_memory(BUDGET_BYTES)
        if not self._at_rest(daemon):
            raise Violation(f"no rest: {daemon.open_tickets} {kernel.pool.slots}")
        pool, _, _ = replay(daemon.log)
        if durable_part(pool) != durable_part(kernel.pool):
            raise Violation("the log and the live pool differ")

    def _at_rest(self, daemon: SimDaemon) -> bool:
        pool = daemon.kernel.pool
        slots = {slot.tenant.worker for slot in pool.slots.values() if isinstance(slot, Idle)}
        living = {worker.worker for worker in self.host.living()}
        healthy = not any(worker.hung for worker in self.host.living())
        idle = len(slots) == len(pool.slots) and not pool.waiters and not pool.wishes
        return (idle and slots == living and not daemon.open_tickets) or (idle and not healthy)


async def _inline(function: Callable[[], Any], *_: object, **__: object) -> Any:
    """What would run in a thread runs here: time is virtual, and threads are not."""
    await trio.lowlevel.checkpoint()
    return function()


def simulate(seed: int, steps: int) -> Outcome:
    """Run one simulation to its end.

    Raises:
        Violation: What must never happen did.
    """
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    threads = anyio.to_thread.run_sync
    anyio.to_thread.run_sync = _inline  # type: ignore[assignment]
    try:
        return trio.run(_main, seed, steps, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        anyio.to_thread.run_sync = threads


async def _main(seed: int, steps: int) -> Outcome:
    async with trio.open_nursery() as tasks:
        host = SimHost(Random(seed + 1), tasks)
        simulation = Simulation(seed, host, tasks)
        await simulation.run(steps)
        simulation.outcome.workers = len(host.spawned)
        tasks.cancel_scope.cancel()
    return simulation.outcome
