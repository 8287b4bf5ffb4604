"""The shipped kernel, log and supervisor in virtual time, on a machine where everything fails.

Every run is a function of its seed: virtual clock, seeded scheduling, seeded faults.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final
from unittest.mock import patch

import anyio
import anyio.to_thread
import trio
import trio.testing

from daemon import kernel as kernel_module
from daemon.eventlog.errors import LogError
from daemon.pool import messages as m
from daemon.pool.state import STATE_VERSION, Idle
from daemon.wire import data as d
from tests.daemon.pool.world import GB, option
from tests.fakes.disk import Crash, FaultyDisk
from tests.sim.checks import check
from tests.sim.clients import Clients, Outcome
from tests.sim.daemons import CAUSE, Setup, SimDaemon, open_daemon
from tests.sim.host import SimHost
from tests.sim.witness import Witness
from tests.sim.worker import SimWorker, Violation

LIMITS: Final = m.Limits(budget_bytes=10 * GB, loads_max=2, ttl_ms=120_000)
LIFE_STEPS_MAX: Final = 90
QUIET_S: Final = 3_000.0
PAUSES_S: Final = (0.0, 0.01, 0.5, 3.0, 15.0, 60.0)
PAUSE_WEIGHTS: Final = (3, 3, 3, 3, 2, 1)
KEPT_MS: Final = 30 * 86_400_000
"""Longer than a simulated machine sleeps: idle models age in its sleep."""

BY_PEOPLE: Final = ("request", "cancelled")
SNAPSHOT_EVERY: Final = 64
"""Instead of thousands: most starts then begin with a snapshot."""


class Simulation:
    """A machine, a disk, and one daemon after another."""

    def __init__(self, seed: int, host: SimHost) -> None:
        self.random = Random(seed)
        self.disk = FaultyDisk(self.random)
        self.host = host
        self.outcome = Outcome()
        self.clients = Clients(self.random, host, self.outcome)
        self.witness = Witness(LIMITS)
        self.setup = Setup(limits=LIMITS, preload=(option(0),))

    async def run(self, steps: int) -> None:
        while self.outcome.steps < steps:
            await self._one_daemon(min(steps - self.outcome.steps, LIFE_STEPS_MAX))
        self.host.faults = False
        self.host.pressure = "normal"
        async with self._daemon() as daemon:
            await self._come_to_rest(daemon)
        await self._bring_back()
        self.outcome.records = self.witness.books.seq
        self.outcome.workers = len(self.host.spawned)
        self.outcome.spares = self.host.handed_over
        self.outcome.read_ahead = len(self.host.read_ahead_of)

    def _daemon(self) -> Any:
        self.outcome.daemons += 1
        return open_daemon(self.disk, self.host, self.witness, self.setup)

    async def _one_daemon(self, steps: int) -> None:
        """A daemon's life: some steps, then one of the ways to end."""
        steps = self.random.randint(1, steps)
        if self.random.random() < 0.2:
            self.disk.crash_at = self.disk.operations + self.random.randint(1, 200)
        try:
            async with self._daemon() as daemon:
                await self._live(daemon, steps)
        except BaseExceptionGroup as group:
            crashes, rest = group.split((Crash, LogError))
            if rest is not None or crashes is None:
                raise
        except (Crash, LogError):
            pass  # the daemon ends as its process would
        self._go_down()

    async def _live(self, daemon: SimDaemon, steps: int) -> None:
        self.clients.check_pins(daemon.kernel.pool.pins)
        self.outcome.safe_modes += self.witness.books.safe_mode
        for _ in range(steps):
            await self._step(daemon)
            if daemon.kernel.read_only is not None and self.random.random() < 0.2:
                return
        if daemon.kernel.read_only is not None:
            return
        end = self.random.random()
        if end < 0.15:
            await self._stop(daemon)
        elif end < 0.35:
            await self._detach(daemon)

    def _go_down(self) -> None:
        """What the daemon's end does to the disk, and what the next one will find."""
        self.disk.capacity_bytes = None
        if self.random.random() < 0.25:
            self._lose_power()
        else:
            self.disk = self.disk.after_kill()
        upgraded = self.random.random() < 0.1
        self.setup = Setup(
            limits=self.setup.limits,
            preload=tuple(
                option(n) for n in self.random.sample(range(4), self.random.randrange(3))
            ),
            state_version=STATE_VERSION + upgraded,
        )

    def _lose_power(self) -> None:
        self.host.lose_power()
        self.disk = self.disk.after_power_loss()
        self.witness.power_lost = True
        self.outcome.power_losses += 1

    # --- steps --------------------------------------------------------------------------

    async def _step(self, daemon: SimDaemon) -> None:
        self.outcome.steps += 1
        doing = self.random.choices(
            (
                self.clients.begin,
                self.clients.leave,
                self._misbehave,
                self._fill_disk,
                self._press,
                self._sleep,
                self._configure,
            ),
            (15, 1, 2, 0.3, 0.5, 0.4, 0.4),
        )[0]
        doing(daemon)
        await trio.sleep(self.random.choices(PAUSES_S, PAUSE_WEIGHTS)[0])
        check(daemon, self.host)

    def _misbehave(self, daemon: SimDaemon) -> None:
        processes = [*self.host.living(), *self.host.spares]
        if not processes:
            return
        worker = self.random.choice(processes)
        match self.random.randrange(5):
            case 0:
                worker.kill()
            case 1:
                worker.hung = True
            case 2:
                worker.say(d.Bye(reason="of its own accord"))
                worker.end(0)
            case 3:
                worker.lie(d.Measured(measured_bytes=self.random.choice((0, GB))))
            case _:
                self._lie(worker)

    def _lie(self, worker: SimWorker) -> None:
        """Reports that do not fit; what it serves is true, or nothing could protect it."""
        lies: list[d.LinkReport] = [
            d.Ready(measured_bytes=-1, load_ms=-1, context_tokens=0),
            d.LoadProgress(done_bytes=-5, total_bytes=0),
            d.StillBusy(running=0),
            d.Running(running=len(worker.requests), leases=("g9.9",)),
        ]
        lie = self.random.choice(lies)
        if not (isinstance(lie, d.Ready) and worker.phase == "loading"):
            worker.lie(lie)

    def _fill_disk(self, _: SimDaemon) -> None:
        self.disk.capacity_bytes = 0 if self.disk.capacity_bytes is None else None
        if self.random.random() < 0.1:
            self.disk.fail_next["sync"] = 5

    def _press(self, _: SimDaemon) -> None:
        """The machine is short of memory, or no longer."""
        levels: tuple[m.PressureLevel, ...] = ("normal", "soft", "hard")
        self.host.pressure = self.random.choices(levels, (4, 1, 1))[0]
        self.outcome.pressed += self.host.pressure != "normal"

    def _sleep(self, _: SimDaemon) -> None:
        """The machine sleeps, or somebody sets its clock back."""
        self.host.asleep_s += self.random.choice((3.0, 100.0, 5_000.0, -30.0))
        self.outcome.sleeps += 1

    def _configure(self, daemon: SimDaemon) -> None:
        """A person edits config.toml and has it read again."""
        limits = m.Limits(
            budget_bytes=self.random.choice((6, 10, 10, 14)) * GB,
            workers_max=self.random.choice((None, None, 2, 3)),
            loads_max=self.random.choice((1, 2)),
            queue_max=self.random.choice((3, 256)),
            ttl_ms=self.random.choice((None, 20_000, 120_000)),
            spare=self.random.random() < 0.5,
        )
        self.setup = Setup(limits=limits, preload=self.setup.preload)
        daemon.post(m.Configure(limits=limits, keys=("pool",)))
        self.outcome.configured += 1

    # --- ends -----------------------------------------------------------------------------

    async def _stop(self, daemon: SimDaemon) -> None:
        await daemon.stop(detach=False)
        check(daemon, self.host)
        if daemon.kernel.pool.slots and not any(w.hung for w in self.host.living()):
            self._check_only_used_stay(daemon)
        self.outcome.stops += 1

    def _check_only_used_stay(self, daemon: SimDaemon) -> None:
        """After the time that a stop takes, only what runs requests is left."""
        for key, slot in daemon.kernel.pool.slots.items():
            if isinstance(slot, Idle) and daemon.kernel.read_only is None:
                raise Violation(f"{key} is idle, and was not unloaded at the end")

    async def _detach(self, daemon: SimDaemon) -> None:
        """For an upgrade: nothing that works is ended for it."""
        check(daemon, self.host)
        serving = {w.worker for w in self.host.living() if w.phase == "ready" and not w.hung}
        await daemon.kernel.carry_out(m.Detach(reason="upgrade"), CAUSE)
        daemon.listen()  # to what the same instant brought, too
        told = [why for _, _, why in self.witness.books.leaving if why == "shutdown"]
        self.witness.books.leaving.clear()
        await daemon.stop(detach=True)
        daemon.listen()
        told += [why for _, _, why in self.witness.books.leaving if why not in BY_PEOPLE]
        if told:
            raise Violation(f"a detach told workers to leave: {told}")
        left = {w.worker for w in self.host.living()}
        if daemon.kernel.read_only is None and not serving <= left:
            raise Violation(f"a detach ended {serving - left}")
        self.outcome.detaches += 1

    async def _come_to_rest(self, daemon: SimDaemon) -> None:
        """Nobody asks any more, and everything ends: answers, loads, drains, processes."""
        kernel = daemon.kernel
        with trio.move_on_after(QUIET_S):
            await trio.sleep(1)  # until all that a start sends has been taken
            while not self._at_rest(daemon):
                await trio.sleep(5)
                check(daemon, self.host)
        if not self._at_rest(daemon):
            raise Violation(f"no rest: {daemon.tickets} {kernel.pool.slots} {kernel.pool.wishes}")

    def _at_rest(self, daemon: SimDaemon) -> bool:
        pool = daemon.kernel.pool
        slots = {slot.tenant.worker for slot in pool.slots.values() if isinstance(slot, Idle)}
        living = {worker.worker for worker in self.host.living()}
        healthy = not any(worker.hung for worker in self.host.living())
        idle = len(slots) == len(pool.slots) and not pool.waiters and not pool.wishes
        return (idle and slots == living and not daemon.tickets) or (idle and not healthy)

    # --- the pool comes back --------------------------------------------------------------

    async def _bring_back(self) -> None:
        """What people made of the pool is there again after a stop, or a loss of power."""
        limits = m.Limits(budget_bytes=60 * GB)
        self.disk = self.disk.after_kill()
        self.setup = Setup(limits=limits, preload=(option(2),))
        async with self._daemon() as daemon:
            await self._make_a_pool(daemon)
            await trio.sleep(130)  # a run so long is no failed start
            if self.random.random() < 0.5:
                await daemon.stop(detach=False)
        self._lose_power()
        async with self._daemon() as daemon:
            await self._come_to_rest(daemon)
            there = {key: slot.tenant.ttl_ms for key, slot in daemon.kernel.pool.slots.items()}
            self.outcome.restored = len(there)
            if not {"/m0": KEPT_MS, "/m1": None, "/m2": None}.items() <= there.items():
                raise Violation(f"after the restart there is {there}")
            if "/m1" not in daemon.kernel.pool.pins:
                raise Violation("after the restart the pin is gone")

    async def _make_a_pool(self, daemon: SimDaemon) -> None:
        """One model loaded with a time to live, one pinned; one the configuration preloads."""
        await daemon.ask(lambda t: m.ClearSafeMode(ticket=t, client="person"))
        for number in (0, 1, 2):
            await daemon.ask(partial(_about, m.Unquarantine, number))
        for number, ttl_ms in ((0, KEPT_MS), (1, None)):
            loaded = await daemon.ask(partial(_load, number, number == 1))
            if not isinstance(loaded, m.AnswerLoaded):
                raise Violation(f"nothing is wrong, and {loaded}")
            await daemon.ask(partial(_about, partial(m.SetTtl, ttl_ms=ttl_ms), number))
        await daemon.ask(partial(_about, m.Unload, 2))  # whatever else was asked of it is over


def _about(verb: Callable[..., m.ClientCommand], number: int, ticket: int) -> m.ClientCommand:
    """A command about one model, from a person."""
    return verb(ticket=ticket, client="person", key=f"/m{number}", name=f"m{number}")


def _load(number: int, pin: bool, ticket: int) -> m.ClientCommand:
    return m.Load(ticket=ticket, client="person", options=(option(number),), pin=pin)


def simulate(seed: int, steps: int) -> Outcome:
    """Run one simulation to its end.

    Raises:
        Violation: What must never happen did.
    """
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    with patch.object(kernel_module, "SNAPSHOT_EVERY", SNAPSHOT_EVERY):
        try:
            return trio.run(_main, seed, steps, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            violation = _first(group)
            if violation is None:
                raise  # a bug in the program, or in the simulation
            raise violation from group


def _first(group: BaseExceptionGroup[BaseException]) -> Violation | None:
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, Violation):
            return found
    return None


async def _main(seed: int, steps: int) -> Outcome:
    async with trio.open_nursery() as tasks:
        host = SimHost(Random(seed + 1), tasks)
        simulation = Simulation(seed, host)
        with patch.object(anyio.to_thread, "run_sync", host.in_thread):
            await simulation.run(steps)
        tasks.cancel_scope.cancel()
    return simulation.outcome
