"""One run of the daemon in virtual time: the shipped kernel, log, supervisor and watching."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import anyio
import msgspec
import trio

from daemon.app import Daemon
from daemon.clock import Clock
from daemon.configuration import Configuration
from daemon.eventlog.log import EventLog, OpenReport
from daemon.kernel import Answer, Kernel
from daemon.pool import messages as m
from daemon.pool.background import restored
from daemon.pool.evolve import evolve
from daemon.pool.state import STATE_VERSION, Pool
from daemon.server.catalog import Catalog
from daemon.supervisor.supervisor import Supervisor, open_supervisor_on
from daemon.watching import watch_machine
from daemon.wire.errors import Code
from tests.daemon.pool.world import GB, START_MS
from tests.fakes.disk import FaultyDisk
from tests.sim.host import SimHost
from tests.sim.witness import Witness
from tests.sim.worker import Violation

EVENTS = Path("/home/events")
CAUSE = m.Cause(command="test", client="sim", pid=1)
TERMINAL = m.AnswerGranted | m.AnswerLoaded | m.AnswerUnloaded | m.AnswerDone | m.AnswerRefused
LOOK_EVERY_S = 20.0
TOLERANCE_S = 0.01
"""Clocks are read in whole milliseconds."""

LATE = (Code.DEADLINE, Code.BUSY)
CLOSED = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon finds when it starts: its configuration, and its build."""

    limits: m.Limits
    preload: tuple[m.Option, ...] = ()
    state_version: int = STATE_VERSION
    """Another than the last build's: its snapshots are of no use."""


class Asked(msgspec.Struct, frozen=True):
    """A ticket that waits for its answer, in seconds during which the machine was awake."""

    at_s: float
    wait_s: float | None


class Held(msgspec.Struct, frozen=True):
    """A lease as its client knows it."""

    worker: str
    key: str
    granted_at_s: float
    granted_at_ms: int


class SimDaemon:
    """One run of the daemon, and the clients that are connected to it."""

    def __init__(
        self, kernel: Kernel, supervisor: Supervisor, log: EventLog, witness: Witness
    ) -> None:
        self.kernel = kernel
        self.supervisor = supervisor
        self.log = log
        self.witness = witness
        self.subscription = kernel.subscribe()
        self.tickets: dict[int, Asked] = {}
        self.held: dict[str, Held] = {}
        self.clients: dict[int, trio.CancelScope] = {}
        self.about_pins: Counter[str] = Counter()
        self.ending = False
        self.alive = True
        self.blocked_at_s = -1.0
        """When the log was last seen to be one that cannot be written."""
        self._waiting: dict[int, trio.Event] = {}

    async def ask(
        self, make: Callable[[int], m.ClientCommand], wait_s: float | None = None
    ) -> Answer:
        """The terminal answer to a command, in time.

        Raises:
            anyio.BrokenResourceError: The daemon went down before it answered.
        """
        came = trio.Event()
        answers: list[Answer] = []

        def on_answer(answer: Answer) -> None:
            if isinstance(answer, TERMINAL):
                if answers:
                    raise Violation(f"a second answer: {answer}")
                answers.append(answer)
                self.tickets.pop(ticket, None)
                came.set()

        ticket = self.kernel.ticket(on_answer)
        self.tickets[ticket] = asked = Asked(trio.current_time(), wait_s)
        self._waiting[ticket] = came
        try:
            await self.kernel.send(make(ticket), CAUSE)
            await came.wait()
        except trio.Cancelled:
            self.withdraw(ticket, answers)
            raise
        finally:
            self.tickets.pop(ticket, None)
            del self._waiting[ticket]
        if not answers:
            raise anyio.BrokenResourceError
        _check_in_time(asked, answers[0])
        return answers[0]

    def withdraw(self, ticket: int, answers: list[Answer]) -> None:
        """As a session does whose client has gone, perhaps with an answer on its way."""
        self.kernel.forget((ticket,))
        self.post(m.Withdraw(tickets=(ticket,)))
        for answer in answers:
            if isinstance(answer, m.AnswerGranted):
                self.release(answer.lease)

    def release(self, lease: str) -> None:
        """Given back; the client counts on it no more."""
        self.held.pop(lease, None)
        self.post(m.Release(leases=(lease,)))

    def post(self, command: m.AnyCommand) -> None:
        with suppress(*CLOSED):
            self.kernel.post(command, CAUSE)

    def listen(self) -> None:
        """Everything that has become visible is heard by the witness."""
        self.witness.hear(self.subscription)

    def farewell(self) -> None:
        """The process is gone: all who are connected notice."""
        self.alive = False
        for came in self._waiting.values():
            came.set()
        self.listen()
        self.subscription.close()

    async def stop(self, *, detach: bool) -> None:
        """As the shipped daemon stops."""
        self.ending = True
        nothing = cast(Catalog, None), cast(Configuration, None)
        await Daemon(self.kernel, self.supervisor, *nothing).stop("SIGTERM", detach=detach)


def _check_in_time(asked: Asked, answer: Answer) -> None:
    if asked.wait_s is None:
        return
    waited_s = trio.current_time() - asked.at_s
    if waited_s > asked.wait_s + TOLERANCE_S:
        raise Violation(f"answered after {waited_s} s of {asked.wait_s}: {answer}")
    late = isinstance(answer, m.AnswerRefused) and answer.fault.code in LATE
    if late and waited_s < asked.wait_s - TOLERANCE_S:
        raise Violation(f"too late after {waited_s} s of {asked.wait_s}: {answer}")


def _replay(log: EventLog, report: OpenReport, limits: m.Limits) -> Pool:
    """As a daemon's start does: the newest snapshot, and what came after it."""
    pool = Pool(limits=limits)
    if report.snapshot is not None:
        pool = msgspec.msgpack.decode(report.snapshot.state, type=Pool)
    for record in log.replay(report.replay_after):
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
    return pool


@asynccontextmanager
async def open_daemon(
    disk: FaultyDisk, host: SimHost, witness: Witness, setup: Setup
) -> AsyncIterator[SimDaemon]:
    """As :mod:`daemon.app` puts it together; leaving the block is a crash."""
    with ExitStack() as at_last:
        log, report = EventLog.open(EVENTS, disk, state_version=setup.state_version)
        at_last.callback(log.close)
        witness.compare(log)
        pool = _replay(log, report, setup.limits)
        _check_start(pool, host, witness)
        clock = Clock(
            report.end.at_ms,
            wall_s=lambda: START_MS / 1000 + trio.current_time() + host.asleep_s,
            monotonic_s=trio.current_time,
        )
        async with open_supervisor_on(host, clock.now_ms) as supervisor:
            kernel = Kernel(pool, log, clock, supervisor)
            at_last.callback(kernel.close)
            supervisor.attach(kernel.send)
            daemon = SimDaemon(kernel, supervisor, log, witness)
            at_last.callback(_farewell, daemon, host)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.run)
                tasks.start_soon(
                    watch_machine, kernel.carry_out, clock, host.read_pressure, LOOK_EVERY_S
                )
                await _begin(daemon, host, report, setup)
                yield daemon
                tasks.cancel_scope.cancel()


def _check_start(pool: Pool, host: SimHost, witness: Witness) -> None:
    """What was on disk is what the last daemon showed, and covers all that was done."""
    if pool.run is not None and pool != witness.pool:
        raise Violation("the start replays another pool than the records add up to")
    if not host.spawned <= witness.books.intended:
        raise Violation(f"no intent on disk: {host.spawned - witness.books.intended}")
    if not host.begun <= witness.books.recorded:
        raise Violation(f"loaded before it was recorded: {host.begun - witness.books.recorded}")


async def _begin(daemon: SimDaemon, host: SimHost, report: OpenReport, setup: Setup) -> None:
    left = daemon.kernel.pool
    start = m.Start(
        pid=1,
        boot_id=host.boot_id,
        version=f"sim {setup.state_version}",
        budget_bytes=setup.limits.budget_bytes,
        memory_total_bytes=100 * GB,
        limits=setup.limits,
        tail_lost_bytes=report.tail_lost.lost_bytes if report.tail_lost else 0,
        tail_kept_as=report.tail_lost.kept_as if report.tail_lost else "",
    )
    await daemon.kernel.carry_out(start, CAUSE)
    daemon.listen()
    host.tell = daemon.post
    await daemon.supervisor.adopt(left, left.generation + 1)
    await daemon.kernel.send(m.Restore(wishes=restored(daemon.kernel.pool)), CAUSE)
    wishes = tuple(m.Wish(option=option, reason="preload") for option in setup.preload)
    await daemon.kernel.send(m.Restore(wishes=wishes), CAUSE)


def _farewell(daemon: SimDaemon, host: SimHost) -> None:
    host.tell = None
    host.end_spares()
    daemon.farewell()
