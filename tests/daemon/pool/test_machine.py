"""Any commands, reports and jumps of time, in any order: what must hold always holds."""

from typing import Any, ClassVar, Literal, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from daemon.pool import messages as m
from daemon.pool.estimate import TICKET, estimate
from daemon.pool.state import Busy, Draining, Idle, Loading, Stopping
from tests.daemon.pool.estimates import check_estimate
from tests.daemon.pool.world import EVERYTHING, GB, Given, World, option

MODEL = st.integers(0, 4)
TIME_MS = st.sampled_from((0, 1, 900, 5_000, 11_000, 31_000, 61_000, 125_000, 700_000))
SIZE = st.sampled_from((-5, 0, 1 * GB, 3 * GB, 6 * GB, 50 * GB))
TTL_MS = st.sampled_from((None, None, 0, 3_000, 60_000, "never"))
PRIORITY = st.sampled_from((0, 0, 0, -10, 3, 10))
INDEX = st.integers(0, 30)
COUNT = st.integers(-2, 3)
Phase = Literal["waiting", "loading", "ready", "draining"]
PHASE = st.sampled_from(get_args(Phase))


class PoolMachine(RuleBasedStateMachine):
    given: ClassVar[set[Given]] = set()

    @initialize(
        loads_max=st.integers(1, 2),
        workers_max=st.sampled_from((None, 1, 2, 3)),
        queue_max=st.sampled_from((2, 256)),
        ttl_ms=st.sampled_from((None, 20_000)),
        spare=st.booleans(),
    )
    def begin(
        self,
        loads_max: int,
        workers_max: int | None,
        queue_max: int,
        ttl_ms: int | None,
        spare: bool,
    ) -> None:
        limits = m.Limits(
            budget_bytes=10 * GB,
            loads_max=loads_max,
            workers_max=workers_max,
            queue_max=queue_max,
            ttl_ms=ttl_ms,
            spare=spare,
        )
        self.world = World(limits)
        self.world.restart("b0")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()
            self.given.update(self.world.given)

    # --- clients ------------------------------------------------------------------------

    @rule(
        models=st.lists(MODEL, min_size=1, max_size=3),
        wait_ms=TIME_MS,
        ttl_ms=TTL_MS,
        priority=PRIORITY,
    )
    def acquire(self, models: list[int], wait_ms: int, ttl_ms: m.AskedIdle, priority: int) -> None:
        acquire = m.Acquire(
            ticket=self.world.ticket(),
            client=f"app{models[0]}",
            options=tuple(option(number) for number in models),
            deadline_at_ms=self.world.now_ms + wait_ms,
            ttl_ms=ttl_ms,
            priority=priority,
        )
        self.world.do(acquire)

    @rule(models=st.lists(MODEL, min_size=1, max_size=2), terms=st.integers(0, 15), ttl_ms=TTL_MS)
    def load(self, models: list[int], terms: int, ttl_ms: m.AskedIdle) -> None:
        load = m.Load(
            ticket=self.world.ticket(),
            client="mlxctl",
            options=tuple(option(number, files=3 if terms & 8 else 1) for number in models),
            pin=bool(terms & 1),
            over_budget=bool(terms & 2),
            deadline_at_ms=self.world.now_ms + 20_000 if terms & 4 else None,
            ttl_ms=ttl_ms,
        )
        told = estimate(
            self.world.pool, msgspec.structs.replace(load, ticket=TICKET), self.world.now_ms
        )
        holds = set(self.world.pool.slots)
        check_estimate(told, load, holds, self.world.do(load))

    @rule(index=INDEX, evict=st.booleans())
    def unload_what_is_there(self, index: int, evict: bool) -> None:
        slots = list(self.world.pool.slots.values())
        if slots:
            model = slots[index % len(slots)].tenant.model
            kind = m.Evict if evict else m.Unload
            ticket = self.world.ticket()
            self.world.do(kind(ticket=ticket, client="mlxctl", key=model.key, name=model.name))

    @rule(verb=st.integers(0, 6), model=MODEL, ttl_ms=TTL_MS)
    def verb(self, verb: int, model: int, ttl_ms: m.AskedIdle) -> None:
        kinds: tuple[Any, ...] = (
            m.Unload, m.Evict, m.Pin, m.Unpin, m.Unquarantine, m.SetTtl, m.ClearSafeMode,
        )  # fmt: skip
        named: dict[str, Any] = {"key": f"/m{model}", "name": f"m{model}"}
        if verb == 5:
            named["ttl_ms"] = None if ttl_ms == "never" else ttl_ms
        if verb == 6:
            named = {}
        self.world.do(kinds[verb](ticket=self.world.ticket(), client="mlxctl", **named))

    @rule(index=INDEX)
    def withdraw(self, index: int) -> None:
        tickets = sorted(self.world.tickets)
        if tickets:
            self.world.do(m.Withdraw(tickets=(tickets[index % len(tickets)],)))

    @rule(index=INDEX)
    def release(self, index: int) -> None:
        leases = sorted(self.world.leases)
        if leases:
            self.world.do(m.Release(leases=(leases[index % len(leases)], "g0.99")))

    # --- workers ------------------------------------------------------------------------

    @rule(index=INDEX, turn=st.integers(0, 3))
    def proper(self, index: int, turn: int) -> None:
        self._say_next(index, turn)

    @rule(turns=st.lists(st.tuples(INDEX, st.integers(0, 3)), min_size=2, max_size=8))
    def proper_for_a_while(self, turns: list[tuple[int, int]]) -> None:
        """Without this few runs would get deep."""
        for index, turn in turns:
            self._say_next(index, turn)

    def _say_next(self, index: int, turn: int) -> None:
        """What a worker in this state would say next."""
        slots = list(self.world.pool.slots.values())
        if not slots:
            return
        slot = slots[index % len(slots)]
        worker = slot.tenant.worker
        command: m.AnyCommand
        match slot:
            case Loading() if slot.tenant.process is None:
                command = m.ReportSpawned(worker=worker, pid=9, start_time=1.5, boot_id="b0")
            case Loading():
                command = m.ReportReady(
                    worker=worker,
                    measured_bytes=slot.tenant.model.weights_bytes,
                    load_ms=2_000,
                    context_tokens=8192,
                )
            case Idle():
                command = m.ReportRunning(worker=worker, running=turn)
            case Busy():
                leases = tuple(sorted(slot.leases))[:turn]
                command = m.ReportRunning(worker=worker, running=turn, leases=leases)
            case Draining() if turn == 0:
                command = m.ReportStillBusy(worker=worker, running=1)
            case Draining():
                command = m.ReportDrained(worker=worker)
            case Stopping():
                command = m.ReportExit(worker=worker, exit_code=0, said="bye")
        self.world.do(command)

    @rule(index=INDEX, phase=PHASE, running=COUNT, leased=st.booleans())
    def adopted(self, index: int, phase: Phase, running: int, leased: bool) -> None:
        """A worker that is there says how far it is, whatever the pool thinks of it."""
        slots = list(self.world.pool.slots.values())
        if slots:
            report = m.ReportAdopted(
                worker=slots[index % len(slots)].tenant.worker,
                pid=7,
                phase=phase,
                measured_bytes=GB,
                running=running,
                leases=tuple(sorted(self.world.leases))[: int(leased)],
            )
            self.world.do(report)

    @rule(index=INDEX, kind=st.integers(0, 13), size=SIZE, count=COUNT)
    def improper(self, index: int, kind: int, size: int, count: int) -> None:
        """Anything, from any worker that there is, was, or never was."""
        living = [slot.tenant.worker for slot in self.world.pool.slots.values()]
        workers = [*living * 5, *sorted(self.world.spawned), "w999"]
        worker = workers[index % len(workers)]
        leases = tuple(sorted(self.world.leases))[:1]
        reports: tuple[m.AnyCommand, ...] = (
            m.ReportSpawned(worker=worker, pid=count, start_time=0.5, boot_id="b?"),
            m.ReportProgress(worker=worker, done_bytes=size, total_bytes=size),
            m.ReportReady(worker=worker, measured_bytes=size, load_ms=count, context_tokens=count),
            m.ReportLoadFailed(worker=worker, reason="crashed", message="x" * 5_000),
            m.ReportLoadFailed(worker=worker, reason="out_of_memory", message="no"),
            m.ReportLoadFailed(
                worker=worker,
                reason=("incompatible", "timeout", "daemon_restarted")[count % 3],
                message="no",
            ),
            m.ReportRunning(worker=worker, running=count, leases=leases),
            m.ReportMeasured(worker=worker, measured_bytes=size),
            m.ReportStillBusy(worker=worker, running=count),
            m.ReportExit(worker=worker, signal=9),
            m.ReportAdopted(
                worker=worker,
                pid=1,
                phase=("waiting", "loading", "ready", "draining")[count % 4],
                measured_bytes=size,
                running=count,
                leases=leases,
            ),
            m.ReportUsage(
                worker=worker,
                window_ms=60_000,
                requests=1,
                prompt_tokens=1,
                completion_tokens=1,
                busy_ms=1,
                arrivals=((count, size),),
            ),
            m.ReportExit(worker=worker, exit_code=count, blameless=count > 0),
            m.ReportSpeed(worker=worker, tokens_per_s=float(count)),
        )
        self.world.do(reports[kind])

    # --- time, machine, daemon ----------------------------------------------------------

    @rule(by_ms=TIME_MS)
    def time_passes(self, by_ms: int) -> None:
        self.world.advance(by_ms)

    @rule(by_ms=TIME_MS, kind=st.integers(0, 11), size=SIZE, index=INDEX)
    def machine(self, by_ms: int, kind: int, size: int, index: int) -> None:
        world = self.world
        if kind == 0:
            world.now_ms += by_ms
            world.do(m.ReportClockJump(by_ms=by_ms))
        elif kind <= 3:
            world.do(m.ReportPressure(level=("normal", "soft", "hard")[kind - 1]))
        elif kind <= 5:
            world.do(m.ReportLog(blocked=None if kind == 4 else "no space"))
        elif kind == 6:
            world.do(m.ReportResidue(worker=f"w{index}", residue_bytes=min(size, GB)))
        elif kind == 7:
            limits = m.Limits(budget_bytes=max(size, GB), loads_max=2, queue_max=256)
            world.do(m.Configure(ticket=world.ticket(), limits=limits, keys=("pool.memory",)))
        elif kind <= 9:
            spare = world.pool.spare.name if kind == 8 else f"s{index}"
            world.do(m.ReportSpareEnded(spare=spare or "s0", why="it ended"))
        else:
            wishes = tuple(m.Wish(option=option(n), reason="preload") for n in (0, 1, 4))
            world.do(m.Restore(wishes=wishes))

    @rule(boot=st.integers(0, 3), how=st.integers(0, 8))
    def restart(self, boot: int, how: int) -> None:
        """Stopped, detached or killed; then begun again, here or after a reboot. Not often."""
        if how > 2:
            return
        if how == 1:
            self.world.do(m.Stop(reason="SIGTERM"))
            self.world.do(m.Stopped(reason="SIGTERM"))
        elif how == 2:
            self.world.do(m.Detach(reason="upgrade"))
        self.world.restart(f"b{boot // 3}")

    @rule(index=INDEX)
    def stopping(self, index: int) -> None:
        """A stop that lasts for a while; rarely, for nothing is loaded after it."""
        if index == 0:
            self.world.do(m.Stop(reason="SIGTERM"))


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.mark.timeout(1200)
def test_whatever_happens_the_invariants_hold() -> None:
    PoolMachine.given.clear()
    _run(2_000, 30)
    assert EVERYTHING - PoolMachine.given == set(), "no rule gives these"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_whatever_happens_for_longer_the_invariants_hold() -> None:
    _run(20_000, 60)
