"""The bridge's one control connection: opened at the first request, and again when it is gone.

A connection belongs to the task that opened it, so a keeper task holds it and requests ask
the keeper. Nothing polls: a dead connection is noticed, and dialled again, by the next
request that needs it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import msgspec
import structlog

from daemon.wire.client import Control, open_control
from daemon.wire.control import ModelsView, StatusView
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.shared import Shared

CLIENT: Final = "mlx-bridge"

_log: Final = structlog.get_logger()


class _Attempt:
    """One dialling, shared by every request that waits for it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.control: Control | None = None
        self.fault: Fault | None = None


class DaemonLink:
    """Hands out the control connection; made by :func:`open_link`.

    Attributes:
        status: The pool as it is; however many ask, there is one request at a time.
        models: Likewise everything that could be loaded.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._control: Control | None = None
        self._attempt: _Attempt | None = None
        self._wanted = anyio.Event()
        self.status = Shared(self._status)
        self.models = Shared(self._models)

    async def control(self) -> Control:
        """The connection, dialled if there is none.

        Raises:
            MlxdError: ``no_daemon`` if nobody answers; the next call dials again.
        """
        if self._control is not None and self._control.connected:
            return self._control
        if self._attempt is None:
            self._attempt = _Attempt()
            self._wanted.set()
        attempt = self._attempt
        await attempt.ended.wait()
        if attempt.control is None:
            assert attempt.fault is not None
            raise MlxdError.of(attempt.fault)
        return attempt.control

    async def _status(self) -> StatusView:
        return await (await self.control()).status()

    async def _models(self) -> ModelsView:
        return await (await self.control()).models()

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            try:
                await self._hold()
            except* MlxdError as group:
                self._settle(fault=_first(group).fault)
            except* (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as group:
                _log.warning("daemon.link_failed", reason=repr(_first(group)))
                self._settle(fault=_unreachable(self._socket))
            except* msgspec.MsgspecError as group:
                _log.error("daemon.link_garbled", reason=str(_first(group)))
                self._settle(fault=_unreachable(self._socket))

    async def _hold(self) -> None:
        """Dial, then hold the connection until a request has found it gone."""
        async with open_control(self._socket, CLIENT) as control:
            _log.info("daemon.connected", pid=control.welcome.pid, version=control.welcome.version)
            self._settle(control=control)
            await self._wanted.wait()

    def _settle(self, *, control: Control | None = None, fault: Fault | None = None) -> None:
        self._control = control
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.control, attempt.fault = control, fault
            attempt.ended.set()


@asynccontextmanager
async def open_link(socket: str) -> AsyncIterator[DaemonLink]:
    """A link to the daemon at the path ``socket``, whether or not it runs already."""
    link = DaemonLink(socket)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link._keep)  # noqa: SLF001 - its other half
        try:
            yield link
        except Exception as error:  # noqa: BLE001 - raised below, out of the group's wrapping
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _first(group: BaseException) -> Any:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _unreachable(socket: str) -> Fault:
    return Fault(
        code=Code.NO_DAEMON,
        message=f"the mlxd daemon at {socket} did not answer; see `mlxctl status`",
        hint="see: mlxctl status",
    )
