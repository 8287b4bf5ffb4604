"""The daemon's run: from the lock to the last record. It never imports mlx."""

import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog

from daemon.clock import Clock
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog, OpenReport
from daemon.identity import boot_id
from daemon.kernel import Kernel
from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool
from daemon.server.catalog import Catalog
from daemon.server.listener import open_listener
from daemon.server.session import SessionContext
from daemon.server.views import Facts
from daemon.supervisor import memory
from daemon.supervisor.launch import Launcher, worker_command, worker_env
from daemon.supervisor.supervisor import Supervisor, open_supervisor
from daemon.version import VERSION
from daemon.wire.paths import Home, make_private
from daemon.wire.settings import Settings

EXIT_ALREADY_RUNNING: Final = 73
STOP_S: Final = 50.0
"""How long running requests may go on after the signal to stop; workers that still serve
then end by themselves, as any worker without a daemon does."""

_log = structlog.get_logger("daemon")


class AlreadyRunning(Exception):
    """Another daemon holds the lock."""


class Machine(msgspec.Struct, frozen=True):
    """What is read of the machine once a run."""

    boot_id: str
    memory_total_bytes: int
    budget_bytes: int


class Daemon(msgspec.Struct, frozen=True):
    """A daemon that serves: made by :func:`open_daemon`."""

    kernel: Kernel
    supervisor: Supervisor
    catalog: Catalog

    async def stop(self, reason: str) -> None:
        """Refuse newcomers, let what runs end, unload, and record the end."""
        _log.info("daemon.stopping", reason=reason)
        cause = m.Cause(command="stop")
        await self.kernel.send(m.Stop(reason=reason), cause)
        with anyio.move_on_after(STOP_S):
            await self.kernel.emptied()
        await self.supervisor.flush()
        await self.kernel.carry_out(m.Stopped(reason=reason), cause)
        _log.info("daemon.stopped", reason=reason)


async def run(
    home: Home,
    settings: Settings,
    launcher: Launcher,
    machine: Machine,
    on_ready: Callable[[Path], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then stop in good order.

    Args:
        on_ready: Called with the control socket once it accepts connections.

    Raises:
        AlreadyRunning: Another daemon serves this home.
        MlxdError: A folder is not private, or a socket path is too long.
        LogError: The event log cannot be opened; the message says what to do.
    """
    async with open_daemon(home, settings, launcher, machine) as daemon:
        on_ready(home.control_socket)
        await daemon.stop(await _until_told_to_stop())


@asynccontextmanager
async def open_daemon(
    home: Home, settings: Settings, launcher: Launcher, machine: Machine
) -> AsyncIterator[Daemon]:
    """A daemon that serves ``home`` for the length of the block.

    Leaving the block without :meth:`Daemon.stop` is a crash: workers live on, and the
    next daemon adopts them.
    """
    socket = home.control_socket  # says so at once if its path is too long
    for folder in (home.root, home.run_dir, home.logs_dir):
        make_private(folder)
    with (
        _lock(home.daemon_lock),
        _event_log(home.events_dir) as (log, report),
        ExitStack() as at_last,
    ):
        clock = Clock(not_before_ms=report.end.at_ms)
        pool = _replay(log, _limits(settings, machine.budget_bytes))
        async with open_supervisor(home, launcher, clock.now_ms) as supervisor:
            kernel = Kernel(pool, log, clock, supervisor)
            at_last.callback(kernel.close)  # once no worker's task can report any more
            supervisor.attach(kernel.send)
            catalog = Catalog(settings, home)
            catalog.remember(pool)
            context = SessionContext(
                kernel=kernel,
                log=log,
                catalog=catalog,
                home=home,
                facts=Facts(
                    version=VERSION,
                    pid=os.getpid(),
                    started_at_ms=clock.now_ms(),
                    home=str(home.root),
                    memory_total_bytes=machine.memory_total_bytes,
                ),
            )
            async with _running(kernel):
                await _begin(kernel, supervisor, machine, report)
                async with open_listener(socket, context):
                    yield Daemon(kernel, supervisor, catalog)


async def _begin(
    kernel: Kernel, supervisor: Supervisor, machine: Machine, report: OpenReport
) -> None:
    """Record the start, then find what earlier daemons left running."""
    left = kernel.pool
    cause = m.Cause(command="start", pid=os.getpid())
    await kernel.carry_out(
        m.Start(
            pid=os.getpid(),
            boot_id=machine.boot_id,
            version=VERSION,
            budget_bytes=machine.budget_bytes,
            memory_total_bytes=machine.memory_total_bytes,
            tail_lost_bytes=report.tail_lost.lost_bytes if report.tail_lost else 0,
            tail_kept_as=report.tail_lost.kept_as if report.tail_lost else "",
        ),
        cause,
    )
    await supervisor.adopt(left, left.generation + 1)


def _replay(log: EventLog, limits: Limits) -> Pool:
    pool = Pool(limits=limits)
    for record in log.replay():
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
    return pool


def _limits(settings: Settings, budget_bytes: int) -> Limits:
    pool, safety = settings.pool, settings.safety
    return Limits(
        budget_bytes=budget_bytes,
        workers_max=pool.workers_max,
        loads_max=pool.loads_max,
        queue_max=pool.queue_max,
        kv_tokens=pool.kv_tokens,
        ttl_ms=None if pool.ttl_s is None else int(pool.ttl_s * 1000),
        crashes_max=safety.crashes_max,
        crash_window_ms=int(safety.window_s * 1000),
    )


async def _until_told_to_stop() -> str:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            return signal.Signals(number).name
    raise AssertionError("the signal receiver ended by itself")


@asynccontextmanager
async def _running(kernel: Kernel) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.run)
        yield
        tasks.cancel_scope.cancel()


@contextmanager
def _event_log(folder: Path) -> Iterator[tuple[EventLog, OpenReport]]:
    log, report = EventLog.open(folder, OsDisk())
    for warning in report.warnings:
        _log.warning("log.warning", why=warning)
    try:
        yield log, report
    finally:
        log.close()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(str(path)) from error
        yield


def read_machine(settings: Settings) -> Machine:
    """Ask the machine what it has; a configured budget above its memory is clamped."""
    total_bytes = memory.memory_total_bytes()
    working_set_bytes = memory.recommended_working_set_bytes(worker_command())
    budget, warning = memory.budget_bytes(settings.pool.memory, total_bytes, working_set_bytes)
    if warning is not None:
        _log.warning("budget.clamped", why=warning)
    return Machine(boot_id(), total_bytes, budget)


def make_launcher(home: Home, settings: Settings, environ: dict[str, str]) -> Launcher:
    """Workers are started by this interpreter, with a scrubbed environment."""
    return Launcher(
        run_dir=home.run_dir,
        logs_dir=home.logs_dir,
        command=worker_command(),
        env=worker_env(environ, settings.worker.env),
    )
