"""The kernel: the one writer. Take a command, decide, append, sync, believe, tell, act.

Nothing else changes the pool or the log. Commands that wait together are decided one
after the other and committed together; until the commit is done nobody sees any of it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import structlog

from daemon.clock import Clock
from daemon.eventlog.errors import LogWriteFailed
from daemon.eventlog.log import EventLog
from daemon.eventlog.reader import Line
from daemon.pool import messages as m
from daemon.pool.decide import decide, next_due_ms
from daemon.pool.evolve import evolve
from daemon.pool.react import must_sync, react
from daemon.pool.state import STATE_VERSION, Pool

COMMANDS_MAX: Final = 4096
"""Commands waiting for the kernel; senders wait beyond it."""

BATCH_MAX: Final = 256
WATCHER_RECORDS_MAX: Final = 1024
"""Records a watcher may be behind; more, and its watch ends as lagged."""

SNAPSHOT_EVERY: Final = 4096
"""Records between snapshots."""

PROBE_MS: Final = 10_000
"""How often a log that could not be written is tried again."""

UNLOGGED_MAX: Final = 1024
"""Observations held while the log cannot be written; beyond it, usage is not kept."""

Terminal = m.AnswerGranted | m.AnswerLoaded | m.AnswerUnloaded | m.AnswerDone | m.AnswerRefused
Answer = Terminal | m.AnswerProgress
OnAnswer = Callable[[Answer], None]

_log = structlog.get_logger("kernel")


class Order(msgspec.Struct, frozen=True):
    """A command and who or what gave it."""

    command: m.AnyCommand
    cause: m.Cause
    visible: anyio.Event | None = None


class Performer(Protocol):
    """Whoever carries effects out; outcomes come back as commands."""

    def perform(self, effect: m.AnyEffect) -> None:
        """Begin ``effect`` and return at once."""


class _Step(msgspec.Struct, frozen=True):
    """One decided command of a batch: what it made true, and the pool after each event."""

    at_ms: int
    logged: bool
    beliefs: tuple[tuple[m.Event, Pool], ...]


class Subscription:
    """Records as they become durable, for one watcher."""

    def __init__(self) -> None:
        self._send, self.lines = anyio.create_memory_object_stream[Line](WATCHER_RECORDS_MAX)

    def close(self) -> None:
        """No more records."""
        self._send.close()
        self.lines.close()

    def publish(self, line: Line) -> bool:
        """False once the watcher has fallen behind or gone away."""
        try:
            self._send.send_nowait(line)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._send.close()
            return False
        return True


class Kernel:
    """Owns the pool and the log; everybody else sends commands and reads ``pool``."""

    def __init__(
        self,
        pool: Pool,
        log: EventLog,
        clock: Clock,
        performer: Performer,
        *,
        sync: bool = True,
    ) -> None:
        """Args: ``sync`` false leaves it to the system when decisions reach the disk."""
        self.pool = pool
        self.read_only: str | None = None
        self._log = log
        self._clock = clock
        self._performer = performer
        self._sync = sync
        self._orders, self._inbox = anyio.create_memory_object_stream[Order](COMMANDS_MAX)
        self._own: deque[Order] = deque()
        self._asked: dict[int, OnAnswer] = {}
        self._tickets = 0
        self._replayed = pool
        self._snapshot_seq = log.position.seq
        self._watchers: list[Subscription] = []
        self._probe_at_ms: int | None = None
        self._unlogged: list[tuple[int, m.Cause, tuple[m.DurableEvent, ...]]] = []
        self._changed = anyio.Event()

    # --- what others call ---------------------------------------------------------

    @property
    def seq(self) -> int:
        """Of the last durable record."""
        return self._log.position.seq

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def ticket(self, on_answer: OnAnswer) -> int:
        """A new ticket: ``on_answer`` gets its progress and its one terminal answer."""
        self._tickets += 1
        self._asked[self._tickets] = on_answer
        return self._tickets

    def forget(self, tickets: Iterable[int]) -> None:
        """Nobody listens for these any more; a lease granted to one is given back."""
        for ticket in tickets:
            self._asked.pop(ticket, None)

    async def send(self, command: m.AnyCommand, cause: m.Cause) -> None:
        """Hand in a command; at once where there is room, else waits for it.

        A deadline in ``command`` is by the clock as it is now, and may not wait for a turn.
        """
        await self._hand_in(Order(command, cause))

    async def _hand_in(self, order: Order) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            self._orders.send_nowait(order)
        except anyio.WouldBlock:
            await self._orders.send(order)

    def post(self, command: m.AnyCommand, cause: m.Cause) -> None:
        """Hand in a command without waiting; for what must not be lost."""
        order = Order(command, cause)
        try:
            self._orders.send_nowait(order)
        except anyio.WouldBlock:
            self._own.append(order)  # the inbox is full: the kernel is awake and comes to it

    async def carry_out(self, command: m.AnyCommand, cause: m.Cause) -> None:
        """Hand in a command and wait until what it made true is durable and visible."""
        visible = anyio.Event()
        await self._hand_in(Order(command, cause, visible))
        await visible.wait()

    def close(self) -> None:
        """No more commands; the last thing done to a kernel."""
        self._orders.close()
        self._inbox.close()

    async def write_snapshot(self) -> None:
        """Keep what the log adds up to, so that the next start replays less of it."""
        position, state = self._log.position, msgspec.msgpack.encode(self._replayed)
        self._snapshot_seq = position.seq
        try:
            await anyio.to_thread.run_sync(self._log.write_snapshot, position, state, STATE_VERSION)
        except LogWriteFailed as failure:
            _log.warning("snapshot.failed", reason=str(failure))

    async def emptied(self) -> None:
        """Wait until no model is in memory, loading or leaving."""
        while self.pool.slots:
            await self.changed()

    async def changed(self) -> None:
        """Wait until something has been decided."""
        await self._changed.wait()

    def subscribe(self) -> Subscription:
        """Records from the next one on."""
        subscription = Subscription()
        self._watchers.append(subscription)
        return subscription

    # --- the one writer -------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._commit(await self._next_batch())

    async def _next_batch(self) -> list[Order]:
        if not self._own:
            due_ms = self._due_ms()
            wait_s = None if due_ms is None else max(due_ms - self.now_ms(), 0) / 1000
            with anyio.move_on_after(wait_s):
                self._own.append(await self._inbox.receive())
        batch = list(self._own)
        self._own.clear()
        while len(batch) < BATCH_MAX:
            try:
                batch.append(self._inbox.receive_nowait())
            except anyio.WouldBlock:
                break
        batch.sort(key=_is_clock_jump)
        return batch or [Order(m.Tick(), m.Cause(command="tick"))]

    def _due_ms(self) -> int | None:
        due = [next_due_ms(self.pool, self.now_ms()), self._probe_at_ms]
        return min((t for t in due if t is not None), default=None)

    async def _commit(self, batch: list[Order]) -> None:
        began_ms = self.now_ms()
        timed = orders = [(self._moment_ms(order), order) for order in batch]
        if self.read_only is not None and await self._probe():
            writable = Order(m.ReportLog(blocked=None), m.Cause(command="log_writable"))
            orders = [(began_ms, writable), *timed]
        before, steps = self.pool, []
        pool = before
        for now_ms, order in orders:
            pool, step = self._decide(pool, order, now_ms)
            steps.append(step)
        lines: tuple[Line, ...] = ()
        try:
            lines = await self._write(steps)
        except LogWriteFailed as failure:
            self._log.rollback()
            self._become_read_only(failure)
            steps = self._decide_unlogged(before, began_ms, timed)
        self._publish(lines)
        for step in steps:
            self._make_visible(step)
        if self._log.position.seq - self._snapshot_seq >= SNAPSHOT_EVERY:
            await self.write_snapshot()
        for order in batch:
            if order.visible is not None:
                order.visible.set()
        self._changed.set()
        self._changed = anyio.Event()

    def _moment_ms(self, order: Order) -> int:
        """When ``order`` is decided.

        The clock goes ahead with the very command that says so: anything decided between
        the two would take the machine's sleep for time that somebody waited. So would what
        was sent before, with deadlines by the clock as it was: that is decided first.
        """
        if isinstance(order.command, m.ReportClockJump):
            self._clock.advance(max(order.command.by_ms, 0))
        return self.now_ms()

    def _decide(self, pool: Pool, order: Order, now_ms: int) -> tuple[Pool, _Step]:
        events = decide(pool, order.command, now_ms).events
        durable = tuple(e for e in events if isinstance(e, m.Durable))
        logged = bool(durable) and self.read_only is None
        if logged:
            self._log.append(now_ms, order.cause, durable)
        elif durable:
            self._hold(now_ms, order, durable)
        return self._believe(pool, logged, events, now_ms)

    def _believe(
        self, pool: Pool, logged: bool, events: Iterable[m.Event], now_ms: int
    ) -> tuple[Pool, _Step]:
        beliefs = []
        for event in events:
            pool = evolve(pool, event, now_ms)
            beliefs.append((event, pool))
        return pool, _Step(now_ms, logged, tuple(beliefs))

    async def _write(self, steps: list[_Step]) -> tuple[Line, ...]:
        if not any(step.logged for step in steps):
            return ()
        if self._sync and any(must_sync(e) for step in steps for e, _ in step.beliefs):
            return await anyio.to_thread.run_sync(partial(self._log.commit, sync=True))
        return self._log.commit(sync=False)

    def _publish(self, lines: tuple[Line, ...]) -> None:
        for line in lines:
            self._watchers = [w for w in self._watchers if w.publish(line)]

    def _make_visible(self, step: _Step) -> None:
        if step.logged:
            for event, _ in step.beliefs:
                if isinstance(event, m.Durable):
                    self._replayed = evolve(self._replayed, event, step.at_ms)
        for event, pool in step.beliefs:
            self.pool = pool
            for effect in react(pool, event):
                self._act(effect)

    def _act(self, effect: m.AnyEffect) -> None:
        if isinstance(effect, m.AnswerProgress):
            for ticket in effect.tickets:
                if ticket in self._asked:
                    self._asked[ticket](effect)
        elif isinstance(effect, Terminal):
            on_answer = self._asked.pop(effect.ticket, None)
            if on_answer is not None:
                on_answer(effect)
            elif isinstance(effect, m.AnswerGranted):
                cause = m.Cause(command="asker_gone")
                self._own.append(Order(m.Release(leases=(effect.lease,)), cause))
        else:
            self._performer.perform(effect)

    # --- when the log cannot be written -----------------------------------------------

    def _become_read_only(self, failure: LogWriteFailed) -> None:
        self.read_only = str(failure)
        self._probe_at_ms = self.now_ms() + PROBE_MS if failure.retryable else None
        _log.error("log.read_only", reason=self.read_only, retryable=failure.retryable)

    def _decide_unlogged(
        self, pool: Pool, began_ms: int, timed: list[tuple[int, Order]]
    ) -> list[_Step]:
        """The batch once more, now that none of it can be recorded.

        The pool knows it, and decides nothing that would have to be: what is durable in
        these decisions has happened all the same, and is held for later.
        """
        blocked = Order(m.ReportLog(blocked=self.read_only), m.Cause(command="log_blocked"))
        steps = []
        for now_ms, order in ((began_ms, blocked), *timed):
            pool, step = self._decide(pool, order, now_ms)
            steps.append(step)
        return steps

    def _hold(self, now_ms: int, order: Order, durable: tuple[m.DurableEvent, ...]) -> None:
        _log.warning("event.unlogged", events=[type(e).__name__ for e in durable])
        if len(self._unlogged) < UNLOGGED_MAX or not isinstance(order.command, m.ReportUsage):
            self._unlogged.append((now_ms, order.cause, durable))

    async def _probe(self) -> bool:
        """Whether the log takes records again, with what was held written first."""
        if self._probe_at_ms is None or self.now_ms() < self._probe_at_ms:
            return False
        if await anyio.to_thread.run_sync(self._log.probe):
            try:
                held = await anyio.to_thread.run_sync(self._write_held)
            except LogWriteFailed as failure:
                self._log.rollback()
                self._become_read_only(failure)
                return False
            self.read_only = None
            self._probe_at_ms = None
            self._publish(held)
            _log.info("log.writable")
            return True
        if self._log.read_only is not None:
            self.read_only = self._log.read_only
            self._probe_at_ms = None
        else:
            self._probe_at_ms = self.now_ms() + PROBE_MS
        return False

    def _write_held(self) -> tuple[Line, ...]:
        """Record what was observed meanwhile, at its own time."""
        for at_ms, cause, events in self._unlogged:
            self._log.append(at_ms, cause, events)
        lines = self._log.commit(sync=True)
        for at_ms, _, events in self._unlogged:
            for event in events:
                self._replayed = evolve(self._replayed, event, at_ms)
        self._unlogged.clear()
        return lines


def _is_clock_jump(order: Order) -> bool:
    return isinstance(order.command, m.ReportClockJump)
