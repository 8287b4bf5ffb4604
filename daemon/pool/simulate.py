"""Other rules against one's own demand: the shipped decisions on a virtual clock. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.budget import committed_bytes
from daemon.pool.decide import decide, next_due_ms
from daemon.pool.demand import Demand, Subject
from daemon.pool.evolve import evolve
from daemon.pool.loading import LOAD_TIME_GUESS_MS
from daemon.pool.react import react
from daemon.pool.state import LEASE_LAPSE_MS, Limits, PolicyName, Pool

DEADLINE_MS: Final = 120_000
"""How long a request waits for its model: what the bridge asks for."""

CLIENT: Final = "demand"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What to change; None and the defaults leave things as they were recorded.

    Attributes:
        ttl_ms: Idle time of every model, instead of what was configured and commanded.
    """

    budget_bytes: int | None = None
    policy: PolicyName = "lru"
    ttl_ms: int | None = None


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it.

    Attributes:
        requests: That asked for a model.
        waits: Of requests that did not get it at once; None where nobody knows.
        refused: Requests that did not get it.
        loads: Loads begun; those that ended took ``loading_ms`` together.
        expiries: Unloads for want of use.
        peak_bytes: The most that was claimed at once.
    """

    requests: int = 0
    waits: m.Waits | None = None
    refused: int = 0
    loads: int = 0
    loading_ms: int = 0
    evictions: int = 0
    expiries: int = 0
    peak_bytes: int = 0

    def count_wait(self, wait_ms: int) -> None:
        """Count a request that waited."""
        self.waits = (self.waits or m.Waits()).and_one(wait_ms)

    def count(self, event: m.Event) -> None:
        """Count what an event says."""
        match event:
            case m.LoadStarted():
                self.loads += 1
            case m.LoadReady():
                self.loading_ms += event.load_ms
            case m.EvictStarted():
                self.evictions += 1
            case m.EvictAbandoned():
                self.evictions -= 1
            case m.UnloadStarted():
                self.expiries += event.reason == "ttl"
            case _:
                pass


class _Due(msgspec.Struct, frozen=True):
    """What a worker will report, or a request will end with."""

    at_ms: int
    commands: tuple[m.AnyCommand, ...]


class Simulation:
    """Puts demand to the pool under ``rules``; :meth:`run` gives what came of it.

    Workers take as long to load and to end as they did in the log.

    Args:
        since_ms: Only what happens from then on counts; the demand before it warms up.
        exit_ms: How long a worker takes to end.
    """

    def __init__(
        self, subjects: Mapping[str, Subject], rules: Rules, *, since_ms: int, exit_ms: int
    ) -> None:
        self._subjects = subjects
        self._rules = rules
        self._since_ms = since_ms
        self._exit_ms = exit_ms
        self._pool = Pool(limits=self._changed(Limits(budget_bytes=0)), policy=rules.policy)
        self._now_ms = 0
        self._tickets = 0
        self._asked: dict[int, Demand] = {}
        self._due: list[_Due] = []
        self._outcome = Outcome(waits=m.Waits())

    def run(self, demands: Sequence[Demand], until_ms: int = 0) -> Outcome:
        """Live through ``demands``, which are in order of time, and on to ``until_ms``."""
        for demand in demands:
            self._advance(demand.at_ms)
            self._meet(demand)
        self._advance(until_ms)
        while self._asked or self._due:
            next_ms = self._next_ms()
            assert next_ms is not None, "somebody waits, and nothing is due"
            self._advance(next_ms)
        return self._outcome

    # --- time -------------------------------------------------------------------------

    def _next_ms(self) -> int | None:
        due = [due.at_ms for due in self._due]
        tick_ms = next_due_ms(self._pool, self._now_ms)
        return min((*due, tick_ms) if tick_ms is not None else due, default=None)

    def _advance(self, until_ms: int) -> None:
        """Let all happen that is due by then."""
        while (next_ms := self._next_ms()) is not None and next_ms <= until_ms:
            self._now_ms = max(next_ms, self._now_ms)
            ripe = [due for due in self._due if due.at_ms <= self._now_ms]
            self._due = [due for due in self._due if due.at_ms > self._now_ms]
            if not ripe:
                self._do(m.Tick())
            for due in ripe:
                for command in due.commands:
                    self._do(command)
        self._now_ms = max(until_ms, self._now_ms)

    def _later(self, after_ms: int, *commands: m.AnyCommand) -> None:
        self._due.append(_Due(self._now_ms + after_ms, commands))

    # --- demand -----------------------------------------------------------------------

    def _meet(self, demand: Demand) -> None:
        if demand.kind == "down":
            self._all_gone()
        elif demand.kind == "limits":
            assert demand.limits is not None
            self._do(m.Configure(limits=self._changed(demand.limits), keys=("pool",)))
        elif demand.key in self._subjects:
            self._do(self._command(demand, self._option(demand.key)))

    def _command(self, demand: Demand, option: m.Option) -> m.AnyCommand:
        self._tickets += 1
        ticket, key, name = self._tickets, option.model.key, option.model.name
        match demand.kind:
            case "load":
                return m.Load(ticket=ticket, client=CLIENT, options=(option,))
            case "wish":
                return m.Restore(wishes=(m.Wish(option=option, reason="preload"),))
            case "unload":
                return m.Unload(ticket=ticket, client=CLIENT, key=key, name=name)
            case "evict":
                return m.Evict(ticket=ticket, client=CLIENT, key=key, name=name)
            case "pin":
                return m.Pin(ticket=ticket, client=CLIENT, key=key, name=name)
            case "unpin":
                return m.Unpin(ticket=ticket, client=CLIENT, key=key, name=name)
            case "ttl":
                ttl_ms = demand.ttl_ms if self._rules.ttl_ms is None else self._rules.ttl_ms
                return m.SetTtl(ticket=ticket, client=CLIENT, key=key, name=name, ttl_ms=ttl_ms)
            case _:
                self._asked[ticket] = demand
                self._outcome.requests += self._counts(demand)
                deadline_at_ms = self._now_ms + DEADLINE_MS
                return m.Acquire(
                    ticket=ticket, client=CLIENT, options=(option,), deadline_at_ms=deadline_at_ms
                )

    def _option(self, key: str) -> m.Option:
        option = self._subjects[key].option_at(self._now_ms)
        if self._rules.ttl_ms is None:
            return option
        return replace(option, terms=replace(option.terms, ttl_ms=self._rules.ttl_ms))

    def _changed(self, limits: Limits) -> Limits:
        if self._rules.budget_bytes is None:
            return limits
        return replace(limits, budget_bytes=self._rules.budget_bytes)

    def _all_gone(self) -> None:
        """mlxd was stopped, or the machine: what waits is lost, what was learned stays."""
        for demand in self._asked.values():
            self._outcome.refused += self._counts(demand)
        self._asked.clear()
        self._due.clear()
        old = self._pool
        self._pool = Pool(
            limits=old.limits,
            policy=old.policy,
            learned=old.learned,
            pins=old.pins,
            workers_started=old.workers_started,
            leases_granted=old.leases_granted,
        )

    # --- the world --------------------------------------------------------------------

    def _do(self, command: m.AnyCommand) -> None:
        counts = self._now_ms >= self._since_ms
        for event in decide(self._pool, command, self._now_ms).events:
            self._pool = evolve(self._pool, event, self._now_ms)
            if counts:
                self._outcome.count(event)
            for effect in react(self._pool, event):
                self._perform(effect)
        if counts:
            self._outcome.peak_bytes = max(self._outcome.peak_bytes, committed_bytes(self._pool))

    def _perform(self, effect: m.AnyEffect) -> None:
        match effect:
            case m.SpawnWorker():
                spawned = m.ReportSpawned(worker=effect.worker, pid=0, start_time=0, boot_id="")
                load = self._subjects[effect.model.key].load_at(self._now_ms)
                self._later(load.spawn_ms if load is not None else 0, spawned)
            case m.BeginLoad():
                self._load(effect)
            case m.DrainWorker():
                self._later(0, m.ReportDrained(worker=effect.worker))
            case m.RetireWorker():
                self._later(self._exit_ms, m.ReportExit(worker=effect.worker, exit_code=0))
            case m.AnswerGranted():
                self._granted(effect)
            case m.AnswerRefused():
                demand = self._asked.pop(effect.ticket, None)
                self._outcome.refused += demand is not None and self._counts(demand)
            case _:
                pass  # nobody listens

    def _load(self, effect: m.BeginLoad) -> None:
        load = self._subjects[effect.model.key].load_at(self._now_ms)
        load_ms = LOAD_TIME_GUESS_MS
        if load is not None and load.load_ms is not None:
            load_ms = load.load_ms
        ready = m.ReportReady(
            worker=effect.worker,
            measured_bytes=load.measured_bytes if load is not None else 0,
            load_ms=load_ms,
            context_tokens=effect.model.context_tokens,
        )
        self._later(load_ms, ready)

    def _granted(self, effect: m.AnswerGranted) -> None:
        demand = self._asked.pop(effect.ticket)
        if demand.hold_ms >= LEASE_LAPSE_MS:
            # The lease alone keeps it busy; naming it in a report keeps it from lapsing.
            self._later(0, m.ReportRunning(worker=effect.worker, running=0, leases=(effect.lease,)))
        self._later(demand.hold_ms, m.Release(leases=(effect.lease,)))
        if self._counts(demand) and effect.waited_ms:
            self._outcome.count_wait(effect.waited_ms)

    def _counts(self, demand: Demand) -> bool:
        return demand.at_ms >= self._since_ms
