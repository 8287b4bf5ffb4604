"""The daemon's run: from the lock to the last record. It never imports mlx."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog

from daemon.clock import Clock
from daemon.configuration import Configuration, Machine
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog, OpenReport
from daemon.identity import boot_id
from daemon.kernel import Kernel
from daemon.pool import messages as m
from daemon.pool.background import restored
from daemon.pool.evolve import evolve
from daemon.pool.state import STATE_VERSION, Limits, Pool
from daemon.server.board import StatusBoard
from daemon.server.catalog import Catalog
from daemon.server.listener import check_socket, open_listener
from daemon.server.session import SessionContext
from daemon.server.views import Facts
from daemon.supervisor import memory
from daemon.supervisor.awake import Awake, awake_command
from daemon.supervisor.launch import Launcher, worker_command, worker_env
from daemon.supervisor.pressure import read_pressure
from daemon.supervisor.supervisor import Supervisor, open_supervisor
from daemon.upkeep import see_to
from daemon.version import VERSION
from daemon.watching import watch_machine
from daemon.wire.errors import MlxdError
from daemon.wire.locks import held, is_held
from daemon.wire.paths import Home, make_private
from daemon.wire.settings import Settings
from launchd.activation import Inherited

EXIT_ALREADY_RUNNING: Final = 73
STOP_S: Final = 50.0
"""How long running requests may go on after the signal to stop; workers that still serve
then end by themselves, as any worker without a daemon does."""

_log = structlog.get_logger("daemon")


class Stop:
    """How the daemon is asked to end."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.reason = ""
        self.detach = False

    def ask(self, reason: str, *, detach: bool) -> None:
        """End for ``reason``; with ``detach`` the workers stay for the next daemon."""
        self.reason, self.detach = reason, detach
        self.asked.set()


class Daemon(msgspec.Struct, frozen=True):
    """A daemon that serves: made by :func:`open_daemon`."""

    kernel: Kernel
    supervisor: Supervisor
    catalog: Catalog
    configuration: Configuration

    async def reload_config(self, cause: m.Cause) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See :meth:`Configuration.reload`."""
        return await self.configuration.reload(self.kernel, self.catalog, cause)

    async def stop(self, reason: str, *, detach: bool = False) -> None:
        """Refuse newcomers, let what runs end, unload, and record the end.

        With ``detach`` nothing is unloaded: the next daemon adopts the workers. So it is
        when the log cannot be written: unloads could not be recorded.
        """
        detach = detach or self.kernel.pool.read_only is not None
        _log.info("daemon.stopping", reason=reason, detach=detach)
        cause = m.Cause(command="detach" if detach else "stop")
        command = m.Detach(reason=reason) if detach else m.Stop(reason=reason)
        await self.kernel.carry_out(command, cause)
        if not detach:
            with anyio.move_on_after(STOP_S):
                await self.kernel.emptied()
        await self.supervisor.flush()
        await self.kernel.carry_out(m.Stopped(reason=reason), cause)
        await self.kernel.write_snapshot()
        _log.info("daemon.stopped", reason=reason)


async def run(
    home: Home,
    settings: Settings,
    launcher: Launcher,
    machine: Machine,
    on_ready: Callable[[Path], None],
    inherited: Inherited | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or a detach, then stop in good order.

    Args:
        on_ready: Called with the control socket once it accepts connections.
        inherited: The control socket, where a service manager made it. Then the lock is
            waited for, since the manager would only start this program again and again.

    Raises:
        AlreadyRunning: Another daemon serves this home.
        MlxdError: A folder is not private, or a socket path is too long.
        LogError: The event log cannot be opened; the message says what to do.
    """
    stop = Stop()
    async with open_daemon(home, settings, launcher, machine, stop, inherited) as daemon:
        on_ready(home.control_socket)
        await _until_told_to_stop(daemon, stop, home)
        await daemon.stop(stop.reason, detach=stop.detach)


@asynccontextmanager
async def open_daemon(
    home: Home,
    settings: Settings,
    launcher: Launcher,
    machine: Machine,
    stop: Stop,
    inherited: Inherited | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon that serves ``home`` for the length of the block.

    Leaving the block without :meth:`Daemon.stop` is a crash: workers live on, and the
    next daemon adopts them.
    """
    socket = home.control_socket  # says so at once if its path is too long
    for folder in (home.root, home.run_dir, home.logs_dir):
        make_private(folder)
    configuration = Configuration(home, settings, machine)
    with held(home.daemon_lock, wait=inherited is not None), ExitStack() as at_last:
        check_socket(socket, inherited)
        log, report = at_last.enter_context(_event_log(home.events_dir))
        clock = Clock(not_before_ms=report.end.at_ms)
        pool = _replay(log, report, configuration.limits)
        async with open_supervisor(home, launcher, clock.now_ms) as supervisor:
            if settings.worker.prefix_disk_bytes:
                supervisor.keep_prefixes(home.prefix_dir, settings.worker.prefix_disk_bytes)
            kernel = Kernel(pool, log, clock, supervisor, sync=settings.log.sync)
            at_last.callback(kernel.close)  # once no worker's task can report any more
            supervisor.attach(kernel.send)
            catalog = Catalog(settings, home)
            catalog.remember(pool)
            daemon = Daemon(kernel, supervisor, catalog, configuration)
            facts = _facts(home, machine, clock)
            context = SessionContext(
                kernel=kernel,
                log=log,
                catalog=catalog,
                home=home,
                facts=facts,
                board=StatusBoard(kernel, facts, lambda: configuration.warning),
                reload_config=daemon.reload_config,
                detach=partial(stop.ask, detach=True),
            )
            async with _running(kernel, clock, home):
                await _begin(daemon, machine, report)
                async with open_listener(socket, context, inherited):
                    await _restore(daemon, settings)
                    yield daemon


def _facts(home: Home, machine: Machine, clock: Clock) -> Facts:
    return Facts(
        version=VERSION,
        pid=os.getpid(),
        started_at_ms=clock.now_ms(),
        home=str(home.root),
        memory_total_bytes=machine.memory_total_bytes,
    )


async def _begin(daemon: Daemon, machine: Machine, report: OpenReport) -> None:
    """Record the start, then find what earlier daemons left running."""
    left, limits = daemon.kernel.pool, daemon.configuration.limits
    await daemon.kernel.carry_out(
        m.Start(
            pid=os.getpid(),
            boot_id=machine.boot_id,
            version=VERSION,
            budget_bytes=limits.budget_bytes,
            memory_total_bytes=machine.memory_total_bytes,
            limits=limits,
            tail_lost_bytes=report.tail_lost.lost_bytes if report.tail_lost else 0,
            tail_kept_as=report.tail_lost.kept_as if report.tail_lost else "",
        ),
        m.Cause(command="start", pid=os.getpid()),
    )
    await daemon.supervisor.adopt(left, left.generation + 1)
    # What was found dead is so before anybody may ask.
    await daemon.kernel.carry_out(m.Tick(), m.Cause(command="start"))


async def _restore(daemon: Daemon, settings: Settings) -> None:
    """Wish for the pool as it was, then for what the configuration preloads."""
    await daemon.kernel.send(
        m.Restore(wishes=restored(daemon.kernel.pool)), m.Cause(command="restore")
    )
    for name in settings.pool.preload:
        try:
            options, _ = await daemon.catalog.options(name, ())
        except MlxdError as error:
            _log.error("preload.impossible", model=name, why=error.fault.message)
            continue
        wish = m.Wish(option=options[0], reason="preload")
        await daemon.kernel.send(m.Restore(wishes=(wish,)), m.Cause(command="preload"))


def _replay(log: EventLog, report: OpenReport, limits: Limits) -> Pool:
    """The pool as the log tells it, from the newest snapshot on."""
    pool = Pool(limits=limits)
    if report.snapshot is not None:
        pool = msgspec.msgpack.decode(report.snapshot.state, type=Pool)
    for record in log.replay(report.replay_after):
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
    return pool


async def _until_told_to_stop(daemon: Daemon, stop: Stop, home: Home) -> None:
    """Wait for SIGTERM, SIGINT or a detach; SIGHUP reloads the configuration."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_hear_signals, daemon, stop, home)
        await stop.asked.wait()
        tasks.cancel_scope.cancel()


async def _hear_signals(daemon: Daemon, stop: Stop, home: Home) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                await _reload_by_signal(daemon)
            else:
                # A service manager can only send a signal: a planned restart says with
                # the mark that a daemon follows, for which the models stay in memory.
                stop.ask(signal.Signals(number).name, detach=is_held(home.handover_mark))


async def _reload_by_signal(daemon: Daemon) -> None:
    try:
        await daemon.reload_config(m.Cause(command="SIGHUP"))
    except MlxdError as error:
        _log.error("config.unchanged", why=error.fault.message)


@asynccontextmanager
async def _running(kernel: Kernel, clock: Clock, home: Home) -> AsyncIterator[None]:
    awake = Awake(awake_command(sys.platform, os.getpid()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.run)
        tasks.start_soon(see_to, lambda: kernel.pool, awake, home.logs_dir, home.run_dir)
        tasks.start_soon(watch_machine, kernel.carry_out, clock, read_pressure)
        yield
        tasks.cancel_scope.cancel()


@contextmanager
def _event_log(folder: Path) -> Iterator[tuple[EventLog, OpenReport]]:
    log, report = EventLog.open(folder, OsDisk(), state_version=STATE_VERSION)
    for warning in report.warnings:
        _log.warning("log.warning", why=warning)
    try:
        yield log, report
    finally:
        log.close()


def read_machine() -> Machine:
    """Ask the machine what it has."""
    working_set_bytes = memory.recommended_working_set_bytes(worker_command())
    return Machine(boot_id(), memory.memory_total_bytes(), working_set_bytes)


def make_launcher(home: Home, settings: Settings, environ: dict[str, str]) -> Launcher:
    """Workers are started by this interpreter, with a scrubbed environment."""
    return Launcher(
        run_dir=home.run_dir,
        logs_dir=home.logs_dir,
        command=worker_command(),
        env=worker_env(environ, settings.worker.env),
    )
