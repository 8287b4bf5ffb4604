"""Effects become processes; what processes do comes back as commands.

The supervisor decides nothing and keeps no truth: it spawns, adopts, links, tells and
reaps. A worker's life is one task, from its spawn (or adoption) to its reported exit.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from daemon.pool import messages as m
from daemon.pool.state import Loading, Pool, Slot
from daemon.supervisor.host import Host, OsHost, WorkerLink
from daemon.supervisor.launch import Launcher
from daemon.supervisor.readahead import ReadsAhead
from daemon.supervisor.residue import Wiring
from daemon.supervisor.seat import USAGE_WINDOW_MS, Seat, Usage
from daemon.supervisor.spares import Held, Spares
from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from daemon.wire.paths import Home

RETIRE_GRACE_S: Final = 30.0
"""A retired worker may take so long to end before it is terminated."""

TERMINATE_GRACE_S: Final = 60.0
"""And so long after that before it is killed: killing a large Metal process has left
memory wired until the next boot, so it is the recorded last resort."""

UNREACHABLE: Final = (
    OSError,
    TimeoutError,
    MlxdError,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""What dialling a worker can end in, one that dies in the middle of it included."""

ADOPT_TIMEOUT_S: Final = 5.0
LOCK_POLL_S: Final = 1.0
BUFFERS_BYTES_MAX: Final = 64 << 20
"""Freed buffers that a worker keeps for reuse: part of a claim's overhead."""

KEPT_BYTES_MIN: Final = 16 << 20
"""What may be kept of ended rows where the KV allowance is smaller, also from the overhead:
the caches of recurrent models do not grow with tokens."""

Send = Callable[[m.AnyCommand, m.Cause], Awaitable[None]]

_log = structlog.get_logger("supervisor")
_SELF: Final = m.Cause(command="supervisor")


class Supervisor:
    """Holds the workers; made by :func:`open_supervisor`."""

    def __init__(
        self,
        host: Host,
        tasks: TaskGroup,
        now_ms: Callable[[], int],
        make_wiring: Callable[[], Wiring] = Wiring,
    ) -> None:
        self._host = host
        self._make_wiring = make_wiring
        self._tasks = tasks
        self._now_ms = now_ms
        self._seats: dict[str, Seat] = {}
        self._spares = Spares(host, tasks, self._report)
        self._reads_ahead = ReadsAhead(host.read_ahead, tasks)
        self._prefix_dir: Path | None = None
        self._prefix_disk_bytes = 0
        self._send: Send = _nowhere
        self._generation = 0

    def attach(self, send: Send) -> None:
        """Where outcomes go; before any effect is performed."""
        self._send = send

    def keep_prefixes(self, folder: Path, bytes_max: int) -> None:
        """Let workers keep computed prompts in ``folder``, all of them together so much."""
        self._prefix_dir, self._prefix_disk_bytes = folder, bytes_max

    def perform(self, effect: m.AnyEffect) -> None:
        """Begin ``effect``; returns at once."""
        match effect:
            case m.SpawnWorker():
                seat = Seat(effect.worker, self._make_wiring())
                self._seats[effect.worker] = seat
                spare = self._spares.reserve()
                if spare is None:  # importing takes it a second, and the disk has nothing to do
                    self._reads_ahead.begin(effect.model)
                self._tasks.start_soon(self._host_new, seat, spare, effect.yields)
            case m.ReadAhead():
                self._reads_ahead.begin(effect.model)
            case m.BeginLoad():
                self._reads_ahead.end(effect.model)
                self._tell(effect.worker, self._begin(effect))
            case m.DrainWorker():
                self._tell(effect.worker, d.Drain())
            case m.TrimWorker():
                self._tell(effect.worker, d.Trim())
            case m.RetireWorker():
                self._retire(effect.worker, effect.reason)
            case m.StartSpare():
                self._spares.start(effect.spare)
            case m.EndSpare():
                self._spares.end(effect.spare)
            case _:
                raise AssertionError(f"{type(effect).__name__} is not the supervisor's")

    async def adopt(self, pool: Pool, generation: int) -> None:
        """Find the workers of earlier daemons: take over the known, retire the unknown,
        report the dead.
        """
        self._generation = generation
        for slot in pool.slots.values():
            worker = slot.tenant.worker
            if await self._host.is_held(worker):
                seat = Seat(worker, self._make_wiring())
                self._recognise(seat)
                self._seats[worker] = seat
                self._tasks.start_soon(self._host_adopted, seat)
            else:
                await self._report_lost(slot)
        await self._retire_strays(pool)

    def _recognise(self, seat: Seat) -> None:
        """Who holds the lock, in case the worker does not answer."""
        seat.pid = self._host.holder(seat.worker)
        if seat.pid is not None:
            seat.start_time = self._host.start_time(seat.pid)

    # --- a worker's life --------------------------------------------------------------

    async def _host_new(self, seat: Seat, spare: Held | None, yields: bool) -> None:
        with closing(seat):
            await self._start_and_converse(seat, spare, yields=yields)
            await self._reap(seat)

    async def _host_adopted(self, seat: Seat) -> None:
        with closing(seat):
            await self._take_over_and_converse(seat)
            await self._reap(seat)

    async def _start_and_converse(self, seat: Seat, spare: Held | None, *, yields: bool) -> None:
        try:
            seat.process = await self._spares.take(spare, seat.worker)
            spawned = seat.process is None
            if seat.process is None:
                seat.process = await self._host.spawn(seat.worker, yields=yields)
            seat.pid = seat.process.pid
            seat.start_time = self._host.start_time(seat.pid)
            if spawned:
                await self._host.wait_listening(seat.process)
            async with self._host.open_link(seat.worker, self._generation) as link:
                _log.info("worker.spawned", worker=seat.worker, pid=seat.pid)
                await self._report(
                    m.ReportSpawned(
                        worker=seat.worker,
                        pid=seat.pid,
                        start_time=seat.start_time or 0.0,
                        boot_id=self._host.boot_id,
                    )
                )
                await self._converse(seat, link)
        except UNREACHABLE as error:
            seat.said = seat.said or str(error)
            _log.warning("worker.unreachable", worker=seat.worker, why=str(error))
            self._terminate(seat)

    async def _take_over_and_converse(self, seat: Seat) -> None:
        try:
            with anyio.fail_after(ADOPT_TIMEOUT_S) as dialling:
                async with self._host.open_link(seat.worker, self._generation) as link:
                    dialling.deadline = float("inf")
                    hosting = link.hosting
                    seat.pid = hosting.pid
                    seat.start_time = self._host.start_time(hosting.pid)
                    _log.info("worker.adopted", worker=seat.worker, pid=seat.pid)
                    await self._report(_adopted(seat.worker, hosting))
                    await self._converse(seat, link)
        except UNREACHABLE as error:
            seat.said = seat.said or str(error)
            _log.warning("worker.unreachable", worker=seat.worker, why=str(error))

    async def _converse(self, seat: Seat, link: WorkerLink) -> None:
        """Tell and listen until the worker closes the link."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_deliver, seat, link)
            async for report in link.reports():
                await self._heard(seat, report)
            tasks.cancel_scope.cancel()

    async def _heard(self, seat: Seat, report: d.LinkReport) -> None:
        seat.hear(report)
        if isinstance(report, d.Bye):
            seat.said = report.reason
        elif isinstance(report, d.UsageReport):
            self._count(seat, report)
        elif isinstance(report, d.Written):
            per_s = seat.speed.add(report)
            await self._report(m.ReportSpeed(worker=seat.worker, tokens_per_s=per_s))
        else:
            command = _command(seat.worker, report)
            if command is not None:
                await self._report(command)

    async def _reap(self, seat: Seat) -> None:
        """The link has ended: wait for the process to be gone, then say so."""
        if seat.pid is not None:
            with anyio.move_on_after(RETIRE_GRACE_S):
                await self._host.wait_exit(seat.pid)
            if self._alive(seat):
                self._terminate(seat)
                with anyio.move_on_after(TERMINATE_GRACE_S):
                    await self._host.wait_exit(seat.pid)
            if self._alive(seat):
                self._kill(seat)
                await self._host.wait_exit(seat.pid)
        while seat.process is None and await self._host.is_held(seat.worker):  # noqa: ASYNC110
            await anyio.sleep(LOCK_POLL_S)  # alive, and nobody knows its pid: a lock has no event
        code = seat.process.wait() if seat.process is not None else None
        seat.ended.set()
        del self._seats[seat.worker]
        self._host.remove_files(seat.worker)
        await self._flush(seat)
        await self._report_residue(seat)
        _log.info("worker.exited", worker=seat.worker, exit_code=code, said=seat.said)
        await self._report(
            m.ReportExit(
                worker=seat.worker,
                exit_code=code if code is not None and code >= 0 else None,
                signal=-code if code is not None and code < 0 else None,
                said=seat.said,
            )
        )

    async def _report_residue(self, seat: Seat) -> None:
        """Memory that a worker which is gone has not given back; at most 10 s to find out.

        A load beside it wires memory of its own and would hide what came back: then nothing
        is said, rather than a residue that is none.
        """
        if any(other.loading for other in self._seats.values()):
            return
        residue_bytes = await seat.wiring.residue_bytes(seat.footprint_bytes)
        if residue_bytes and not any(other.loading for other in self._seats.values()):
            _log.error("memory.residue", worker=seat.worker, residue_bytes=residue_bytes)
            await self._report(m.ReportResidue(worker=seat.worker, residue_bytes=residue_bytes))

    # --- telling ------------------------------------------------------------------------

    def _tell(self, worker: str, command: d.LinkCommand) -> None:
        seat = self._seats.get(worker)
        if seat is not None:  # else it has just ended: its exit is on the way
            seat.tell(command)

    def _retire(self, worker: str, reason: str) -> None:
        seat = self._seats.get(worker)
        if seat is None or seat.retiring:
            return
        seat.retiring = True
        seat.tell(d.Retire(reason=reason, grace_s=0.0))
        self._tasks.start_soon(self._insist, seat)

    async def _insist(self, seat: Seat) -> None:
        """Retiring takes the time it takes, but not for ever."""
        with anyio.move_on_after(RETIRE_GRACE_S):
            await seat.ended.wait()
        if not seat.ended.is_set():
            _log.warning("worker.terminated", worker=seat.worker, after_s=RETIRE_GRACE_S)
            self._terminate(seat)
            with anyio.move_on_after(TERMINATE_GRACE_S):
                await seat.ended.wait()
        if not seat.ended.is_set():
            self._kill(seat)

    def _alive(self, seat: Seat) -> bool:
        """Whether the very process is there: same pid, same start, not a zombie."""
        if seat.process is not None:
            return seat.process.poll() is None
        return seat.pid is not None and self._host.start_time(seat.pid) == seat.start_time

    def _terminate(self, seat: Seat) -> None:
        self._signal(seat, signal.SIGTERM)

    def _kill(self, seat: Seat) -> None:
        _log.error("worker.killed", worker=seat.worker, pid=seat.pid)
        seat.said = "killed: it did not end by itself"
        self._signal(seat, signal.SIGKILL)

    def _signal(self, seat: Seat, number: signal.Signals) -> None:
        if seat.pid is not None and self._alive(seat):
            self._host.signal(seat.pid, number)

    def _begin(self, effect: m.BeginLoad) -> d.Begin:
        model = effect.model
        return d.Begin(
            name=model.name,
            path=model.path,
            kind=model.kind,
            adapter=model.adapter,
            allow_code=model.allow_code,
            draft=model.draft,
            draft_tokens=model.draft_tokens,
            weights_bytes=model.weights_bytes,
            kv_tokens=effect.kv_tokens,
            kv_bytes=max(effect.kv_tokens * model.kv_token_bytes, KEPT_BYTES_MIN),
            context_tokens=model.context_tokens,
            rows_max=effect.rows_max,
            cache_bytes_max=BUFFERS_BYTES_MAX,
            yields=effect.yields,
            identity=model.identity,
            prefix_dir=None if self._prefix_dir is None else str(self._prefix_dir),
            prefix_disk_bytes=self._prefix_disk_bytes,
        )

    # --- usage --------------------------------------------------------------------------

    def _count(self, seat: Seat, report: d.UsageReport) -> None:
        if seat.usage is None:
            seat.usage = Usage(min(self._now_ms(), report.started_at_ms))
            self._tasks.start_soon(self._flush_later, seat)
        seat.usage.add(report)

    async def _flush_later(self, seat: Seat) -> None:
        with anyio.move_on_after(USAGE_WINDOW_MS / 1000):
            await seat.ended.wait()
        await self._flush(seat)

    async def _flush(self, seat: Seat) -> None:
        usage, seat.usage = seat.usage, None
        if usage is not None:
            await self._report(usage.report(seat.worker, self._now_ms()))

    async def flush(self) -> None:
        """Report usage now: the daemon is about to stop."""
        for seat in list(self._seats.values()):
            await self._flush(seat)

    # --- after a restart ------------------------------------------------------------------

    async def _report_lost(self, slot: Slot) -> None:
        """A worker of the log that no longer lives."""
        tenant = slot.tenant
        rebooted = tenant.process is not None and tenant.process.boot_id != self._host.boot_id
        if isinstance(slot, Loading):
            await self._report(
                m.ReportLoadFailed(
                    worker=tenant.worker,
                    reason="crashed" if rebooted else "daemon_restarted",
                    message="the machine went down during its load"
                    if rebooted
                    else "the daemon restarted during its load",
                )
            )
        said = "the machine was restarted" if rebooted else "it ended while no daemon ran"
        self._host.remove_files(tenant.worker)
        await self._report(m.ReportExit(worker=tenant.worker, said=said, blameless=True))

    async def _retire_strays(self, pool: Pool) -> None:
        known = {slot.tenant.worker for slot in pool.slots.values()}
        for worker in self._host.workers():
            if worker in known or worker in self._seats:
                continue  # seats: what was lost may be on its way back already
            if await self._host.is_held(worker):
                _log.warning("worker.stray", worker=worker)
                self._tasks.start_soon(self._retire_stray, worker)
            else:
                self._host.remove_files(worker)

    async def _retire_stray(self, worker: str) -> None:
        with suppress(*UNREACHABLE):
            async with self._host.open_link(worker, self._generation) as link:
                await link.send(d.Retire(reason="the event log does not know it", grace_s=600.0))
                async for _ in link.reports():
                    pass

    # --- small things -----------------------------------------------------------------------

    async def _report(self, command: m.AnyCommand) -> None:
        await self._send(command, _SELF)


async def _deliver(seat: Seat, link: WorkerLink) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for command in seat.outbox:
            await link.send(command)


def _adopted(worker: str, hosting: d.Hosting) -> m.ReportAdopted:
    return m.ReportAdopted(
        worker=worker,
        pid=hosting.pid,
        phase=hosting.phase,
        measured_bytes=hosting.measured_bytes,
        context_tokens=hosting.context_tokens,
        running=hosting.running,
        leases=hosting.leases,
    )


def _command(worker: str, report: d.LinkReport) -> m.AnyCommand | None:
    match report:
        case d.LoadProgress():
            return m.ReportProgress(
                worker=worker, done_bytes=report.done_bytes, total_bytes=report.total_bytes
            )
        case d.Ready():
            return m.ReportReady(
                worker=worker,
                measured_bytes=report.measured_bytes,
                load_ms=report.load_ms,
                context_tokens=report.context_tokens,
            )
        case d.LoadFailed():
            return m.ReportLoadFailed(worker=worker, reason=report.reason, message=report.message)
        case d.Running():
            return m.ReportRunning(worker=worker, running=report.running, leases=report.leases)
        case d.Measured():
            return m.ReportMeasured(worker=worker, measured_bytes=report.measured_bytes)
        case d.Drained():
            return m.ReportDrained(worker=worker)
        case d.StillBusy():
            return m.ReportStillBusy(worker=worker, running=report.running)
        case _:
            return None


async def _nowhere(*_: object) -> None:
    raise AssertionError("attach() comes first")


@asynccontextmanager
async def open_supervisor(
    home: Home, launcher: Launcher, now_ms: Callable[[], int]
) -> AsyncIterator[Supervisor]:
    """A supervisor whose workers outlive it: leaving the block only closes the links."""
    async with open_supervisor_on(OsHost(home, launcher), now_ms) as supervisor:
        yield supervisor


@asynccontextmanager
async def open_supervisor_on(
    host: Host, now_ms: Callable[[], int], make_wiring: Callable[[], Wiring] = Wiring
) -> AsyncIterator[Supervisor]:
    """The same on any host, and with memory that is read in another way."""
    async with anyio.create_task_group() as tasks:
        yield Supervisor(host, tasks, now_ms, make_wiring)
        tasks.cancel_scope.cancel()
