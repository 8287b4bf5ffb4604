"""A pool under test with an observer that keeps its own books and believes no helper of ours."""

import itertools
from collections.abc import Iterable
from typing import Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from daemon.pool import messages as m
from daemon.pool.decide import decide, next_due_ms
from daemon.pool.evolve import evolve
from daemon.pool.react import react
from daemon.pool.state import (
    Busy,
    Draining,
    Idle,
    Loading,
    Pool,
    Slot,
    Stopping,
)
from tests.daemon.pool.durable import durable_part

GB = 10**9
START_MS = 1_000_000_000
_TERMINAL = m.AnswerGranted | m.AnswerLoaded | m.AnswerUnloaded | m.AnswerDone | m.AnswerRefused
_OBSERVED = (
    m.LoadReady
    | m.LoadFailed
    | m.WorkerAdopted
    | m.WorkerExited
    | m.EvictFinished
    | m.EvictAbandoned
    | m.UnloadFinished
    | m.UnloadAbandoned
    | m.ModelQuarantined
    | m.MemoryResidue
    | m.UsageRecorded
    | m.ClockJumped
)
"""What is true whether it can be recorded or not."""


Given = tuple[type, str, object]
"""A kind of command, or the word in one of its fields that take one of a few words."""

COMMANDS: Final[tuple[type, ...]] = get_args(m.AnyCommand)
WORDS: Final = {
    kind: {
        name: get_args(hint)
        for name, hint in get_type_hints(kind).items()
        if get_origin(hint) is Literal
    }
    for kind in COMMANDS
}
EVERYTHING: Final[frozenset[Given]] = frozenset(
    [(kind, "", None) for kind in COMMANDS]
    + [
        (kind, name, word)
        for kind in COMMANDS
        for name in WORDS[kind]
        for word in WORDS[kind][name]
    ]
)


def option(number: int, *, files: int = 1) -> m.Option:
    """Five models of 2 to 9 GB; the fifth can never fit the 10 GB that these tests begin with."""
    size_bytes = (2, 3, 5, 7, 40)[number] * GB
    model = m.Model(
        key=f"/m{number}",
        name=f"m{number}",
        path=f"/m{number}",
        kind="text",
        capabilities=("text",),
        weights_bytes=size_bytes,
        kv_token_bytes=1000 * number,
        context_tokens=8192,
        identity=str(files),
    )
    ttl_ms = 45_000 if number == 1 else None
    return m.Option(model=model, terms=m.Terms(ttl_ms=ttl_ms, pin=number == 3 and files == 3))


class World:
    """Does what the kernel does, and checks after every event and every command."""

    def __init__(self, limits: m.Limits) -> None:
        self.now_ms = START_MS
        self.pool = Pool(limits=limits)
        self.replayed = Pool(limits=limits)
        self.budget_bytes = limits.budget_bytes
        self.residue_bytes = 0
        self.tickets: set[int] = set()
        self.tickets_used = 0
        self.leases: dict[str, str] = {}
        self.spawned: set[str] = set()
        self.drain_asked_ms: dict[str, int] = {}
        self.drained: set[str] = set()
        self.closed: str | None = None  # who just said: I had closed admission, nothing runs
        self.was: dict[str, Slot] = {}
        self.given: set[Given] = set()

    # --- doing ------------------------------------------------------------------------

    def ticket(self) -> int:
        self.tickets_used += 1
        self.tickets.add(self.tickets_used)
        return self.tickets_used

    def do(self, command: m.AnyCommand) -> tuple[m.Event, ...]:
        self.given.add((type(command), "", None))
        for name in WORDS[type(command)]:
            self.given.add((type(command), name, getattr(command, name)))
        if isinstance(command, m.Withdraw):
            self.tickets -= set(command.tickets)  # nothing is owed to them any more
        if isinstance(command, m.ReportDrained):
            self.drained.add(command.worker)
        self.closed = _closed(command)
        before = msgspec.msgpack.encode(self.pool)
        events = decide(self.pool, command, self.now_ms).events
        assert msgspec.msgpack.encode(self.pool) == before, "a decision changed what it was given"
        if self.pool.read_only is not None and not isinstance(command, m.ReportLog):
            _check_unrecorded(command, events)
        for event in events:
            self._believe(event)
        self.check()
        return events

    def _believe(self, event: m.Event) -> None:
        self.was = {slot.tenant.worker: slot for slot in self.pool.slots.values()}
        self.pool = evolve(self.pool, event, self.now_ms)
        if isinstance(event, m.Durable):
            line = msgspec.json.encode(event)
            again: m.DurableEvent = msgspec.json.decode(line, type=m.DurableEvent)
            assert again == event
            self.replayed = evolve(self.replayed, again, self.now_ms)
        self._observe(event)
        for effect in react(self.pool, event):
            self._perform(effect)

    def advance(self, by_ms: int) -> None:
        """Let time pass, with the ticks that the pool asks for."""
        until_ms = self.now_ms + by_ms
        for _ in range(1000):
            due_ms = next_due_ms(self.pool, self.now_ms)
            if due_ms is None or due_ms > until_ms:
                break
            assert due_ms > self.now_ms
            self.now_ms = due_ms
            self.do(m.Tick())
        else:
            raise AssertionError("ticks that never end")
        self.now_ms = until_ms
        self.do(m.Tick())

    def restart(self, boot_id: str) -> None:
        """The daemon was killed: what the log holds is all that is left."""
        kept = msgspec.msgpack.encode(self.replayed)  # as a snapshot holds it
        self.pool = msgspec.msgpack.decode(kept, type=Pool)
        assert self.pool == self.replayed
        self.tickets.clear()
        self.leases.clear()
        self.now_ms += 500
        start = m.Start(
            pid=1,
            boot_id=boot_id,
            version="1",
            budget_bytes=self.budget_bytes,
            memory_total_bytes=64 * GB,
        )
        self.do(start)

    # --- observing --------------------------------------------------------------------

    def _observe(self, event: m.Event) -> None:
        match event:
            case m.LoadStarted():
                self._check_load(event)
            case m.EvictStarted() | m.UnloadStarted():
                before = self.was[event.worker]
                assert not isinstance(before, Busy), "something in use was told to leave"
                assert event.worker not in self.leases.values()
            case m.LeaseGranted():
                assert isinstance(self.was[event.worker], Idle | Busy)
                assert event.lease not in self.leases
                self.leases[event.lease] = event.worker
            case m.LeaseEnded():
                del self.leases[event.lease]
            case m.WorkerExited():
                assert event.worker not in self.leases.values(), "a lease on a gone worker"
            case m.MemoryResidue():
                self.residue_bytes = sum(r.residue_bytes for r in self.pool.residues.values())
            case m.DaemonStarted():
                self.residue_bytes = sum(r.residue_bytes for r in self.pool.residues.values())
            case m.ConfigChanged() if event.limits is not None:
                self.budget_bytes = event.limits.budget_bytes
            case m.WaiterLeft():
                self.tickets.discard(event.ticket)
            case _:
                pass

    def _check_load(self, event: m.LoadStarted) -> None:
        claims = sum(
            max(slot.tenant.reserved_bytes, slot.tenant.measured_bytes)
            for slot in self.pool.slots.values()
        )
        if not event.over_budget:
            assert claims <= self.budget_bytes - self.residue_bytes, "memory over-committed"
        workers_max = self.pool.limits.workers_max
        assert workers_max is None or len(self.pool.slots) <= workers_max
        asked = [
            slot
            for slot in self.pool.slots.values()
            if isinstance(slot, Loading) and slot.reason not in ("preload", "restore")
        ]
        assert len(asked) <= self.pool.limits.loads_max
        assert self.pool.pressure == "normal"
        assert self.pool.stopping is None

    def _perform(self, effect: m.AnyEffect) -> None:
        if isinstance(effect, _TERMINAL):
            assert effect.ticket in self.tickets, "an answer to nobody, or a second one"
            self.tickets.remove(effect.ticket)
        elif isinstance(effect, m.SpawnWorker):
            assert effect.worker not in self.spawned, "a worker id used twice"
            self.spawned.add(effect.worker)
        elif isinstance(effect, m.BeginLoad):
            slot = self.pool.slot_of(effect.worker)
            assert isinstance(slot, Loading)
            assert slot.tenant.process is not None
        elif isinstance(effect, m.DrainWorker):
            self.drained.discard(effect.worker)
            # Asked again when it is adopted again; its time runs from the first.
            self.drain_asked_ms.setdefault(effect.worker, self.now_ms)
        elif isinstance(effect, m.RetireWorker):
            self._check_retired(effect.worker)

    def _check_retired(self, worker: str) -> None:
        """Only what is drained, never loaded, hanging or unknown may be told to end."""
        assert worker not in self.leases.values(), "a leased worker was stopped"
        slot, before = self.pool.slot_of(worker), self.was.get(worker)
        if slot is None:
            return
        assert isinstance(slot, Stopping)
        if isinstance(before, Draining) and worker not in self.drained | {self.closed}:
            assert self.now_ms - self.drain_asked_ms[worker] >= 120_000

    # --- what must always hold ----------------------------------------------------------

    def check(self) -> None:
        pool = self.pool
        assert durable_part(self.replayed) == durable_part(pool), "replay differs"
        waiting = {w.ticket for w in pool.waiters} | {w.ticket for w in pool.unload_waiters}
        assert waiting == self.tickets, "a waiter was lost, or waits for nothing"
        assert len(pool.waiters) <= pool.limits.queue_max
        for waiter in pool.waiters:
            slot = pool.slots.get(waiter.option.model.key)
            assert not isinstance(slot, Idle | Busy), "a resident model was waited for"
            assert waiter.deadline_at_ms is None or waiter.deadline_at_ms > self.now_ms
        for before, after in itertools.pairwise(pool.waiters):
            sooner_ms = 3_000 * (after.priority - before.priority)
            assert before.since_ms <= after.since_ms - sooner_ms, "out of turn"
        for asker in pool.unload_waiters:
            slot = pool.slot_of(asker.worker)
            assert isinstance(slot, Draining | Stopping), "an unloading that nobody does"
        held = {lease: pool.slots[entry.key].tenant.worker for lease, entry in pool.leases.items()}
        assert held == self.leases
        for key, slot in pool.slots.items():
            assert slot.tenant.model.key == key
            leases = {name for name, entry in pool.leases.items() if entry.key == key}
            if isinstance(slot, Busy):
                assert slot.leases == leases
                assert slot.leases or slot.running > 0
            else:
                assert not leases, "a lease on a worker that does not serve"

    # --- the end ------------------------------------------------------------------------

    def finish(self) -> None:
        """Workers and clients behave from now on: everything must come to an end."""
        self.do(m.ReportLog(blocked=None))
        self.do(m.ReportPressure(level="normal"))
        for _ in range(100):
            self.do(m.Release(leases=tuple(self.leases)))
            commands = list(self._proper_reports(self.pool.slots.values()))
            if not commands and not self.tickets and not self.pool.wishes:
                break
            for command in commands:
                self.do(command)
            self.advance(1_000 if commands else 60_000)
        assert not self.tickets, "somebody waits for ever"
        assert not [s for s in self.pool.slots.values() if not isinstance(s, Idle)]

    def _proper_reports(self, slots: Iterable[Slot]) -> Iterable[m.AnyCommand]:
        for slot in slots:
            worker = slot.tenant.worker
            match slot:
                case Loading():
                    yield m.ReportReady(
                        worker=worker,
                        measured_bytes=slot.tenant.model.weights_bytes,
                        load_ms=1_000,
                        context_tokens=8192,
                    )
                case Busy():
                    yield m.ReportRunning(worker=worker, running=0)
                case Draining():
                    yield m.ReportDrained(worker=worker)
                case Stopping():
                    yield m.ReportExit(worker=worker, exit_code=0)
                case Idle():
                    pass


def _check_unrecorded(command: m.AnyCommand, events: tuple[m.Event, ...]) -> None:
    """While the log cannot be written, things happen, but nothing is decided."""
    adopted = isinstance(command, m.ReportAdopted)
    for event in events:
        if isinstance(event, m.Durable) and not (adopted and isinstance(event, m.UnloadStarted)):
            assert isinstance(event, _OBSERVED), "a decision that is not recorded"


def _closed(command: m.AnyCommand) -> str | None:
    """The worker that says of itself, to the daemon that adopts it, that it is drained."""
    if not isinstance(command, m.ReportAdopted):
        return None
    done = command.phase == "draining" and command.running <= 0
    return command.worker if done else None
