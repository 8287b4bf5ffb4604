"""Spares as processes: workers that have imported their libraries and wait to be named.

A spare is a child that hears on its standard input which worker it is; until then it has no
lock and no socket, and it ends with this daemon, whose end closes that input. Only a load
takes one, after ``load.started`` is durable.
"""

import signal
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from daemon.pool import messages as m
from daemon.supervisor.host import Host, WorkerProcess
from daemon.wire.errors import MlxdError

_log: Final = structlog.get_logger("supervisor")


class Held:
    """A spare that is there, or about to be.

    Attributes:
        process: None until it has been started, and again once it has ended by itself.
    """

    def __init__(self, spare: str) -> None:
        self.spare = spare
        self.process: WorkerProcess | None = None
        self.spawned = anyio.Event()
        self.gone = anyio.Event()
        self.dismissed = False
        self.watch = anyio.CancelScope()


class Spares:
    """At most one spare at a time.

    Args:
        ended: Told of a spare that ended by itself.
    """

    def __init__(
        self, host: Host, tasks: TaskGroup, ended: Callable[[m.ReportSpareEnded], Awaitable[None]]
    ) -> None:
        self._host = host
        self._tasks = tasks
        self._ended = ended
        self._held: Held | None = None

    def start(self, spare: str) -> None:
        """Begin to start a process; returns at once."""
        self._held = Held(spare)
        self._tasks.start_soon(self._hold, self._held)

    def end(self, spare: str) -> None:
        """It is wanted no more; one that has ended is fine."""
        if self._held is not None and self._held.spare == spare:
            self._dismiss(self._held)

    def reserve(self) -> Held | None:
        """The spare, for the load that was just decided; None if there is none.

        At once, as the pool counts it: another spare may be decided next.
        """
        held, self._held = self._held, None
        return held

    async def take(self, held: Held | None, worker: str) -> WorkerProcess | None:
        """What was reserved, once it has become ``worker`` and listens as such; None if it
        is of no use."""
        if held is None:
            return None
        await held.spawned.wait()
        process = held.process
        if process is None:
            return None
        try:
            await self._host.hand_over(process, held.spare, worker)
            await self._host.wait_listening(process)
        except (OSError, MlxdError) as error:
            _log.warning("spare.useless", spare=held.spare, worker=worker, why=str(error))
            if held.process is not None:
                self._host.signal(held.process.pid, signal.SIGKILL)
            await held.gone.wait()  # it may have the worker's lock, which the next one takes
            return None
        held.watch.cancel()
        return process

    def _dismiss(self, held: Held) -> None:
        held.dismissed = True
        if self._held is held:
            self._held = None
        if held.process is not None:
            self._host.signal(held.process.pid, signal.SIGTERM)

    async def _hold(self, held: Held) -> None:
        """Start it, and wait for its end unless a load takes it."""
        try:
            with anyio.CancelScope(shield=True):
                process = held.process = await self._host.spawn_spare(held.spare)
        except OSError as error:
            await self._report(held, str(error))
            return
        finally:
            held.spawned.set()
        _log.info("spare.started", spare=held.spare, pid=process.pid)
        if held.dismissed:
            self._dismiss(held)
        with held.watch:
            await self._watch(held, process)

    async def _watch(self, held: Held, process: WorkerProcess) -> None:
        try:
            await self._host.wait_exit(process.pid)
        except anyio.get_cancelled_exc_class():
            if not held.watch.cancel_called:  # this daemon ends, and the spare with it
                self._host.let_go(process)
            raise
        held.process = None  # its pid and its pipes are nobody's from here on
        code = process.wait()
        self._host.let_go(process)
        held.gone.set()
        await self._report(held, f"it ended with exit code {code}")

    async def _report(self, held: Held, why: str) -> None:
        """Say so, unless it was told to end, or a load that took it sees for itself."""
        if self._held is held:
            self._held = None
            _log.warning("spare.ended", spare=held.spare, why=why)
            await self._ended(m.ReportSpareEnded(spare=held.spare, why=why))
