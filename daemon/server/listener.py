"""The control socket, for the owner only: a service manager's, or bound here under the lock."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import structlog

from daemon.server.session import Session, SessionContext
from daemon.wire.control import Refusal
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import encode_frame
from daemon.wire.listening import next_connection
from daemon.wire.peer import check_peer
from daemon.wire.streams import AsyncioStream, accepted_unix
from launchd.activation import Inherited

CONNECTIONS_MAX: Final = 256
TURNED_AWAY_MAX: Final = 16
"""Connections beyond the bound that are told so; more are closed without a word."""

TURN_AWAY_S: Final = 1.0
BACKLOG: Final = 128

_log = structlog.get_logger("server")


@asynccontextmanager
async def open_listener(
    path: Path, context: SessionContext, inherited: Inherited | None = None
) -> AsyncIterator[None]:
    """Accept and serve control connections for the length of the block.

    The caller holds the daemon's lock and has called :func:`check_socket`: a socket file
    that is already there is what a killed daemon left, and is replaced. Inherited sockets
    are served instead, and left in place for the next daemon.
    """
    listeners = (_bind(path),) if inherited is None else inherited.sockets
    peers = None if inherited is None else inherited.peers
    try:
        for listener in listeners:
            listener.setblocking(False)
        async with anyio.create_task_group() as tasks:
            for listener in listeners:
                tasks.start_soon(_accept, listener, context, peers)
            yield
            tasks.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()
        if inherited is None:
            os.unlink(path)  # noqa: PTH108 - pathlib is for threads here


def check_socket(path: Path, inherited: Inherited | None) -> None:
    """See whether the control socket can be ours, before anything is begun.

    Raises:
        MlxdError: ``conflict`` if a service manager listens on ``path``; ``internal`` if
            the inherited socket is another one than clients look for.
    """
    if inherited is None:
        if _listens(path):
            raise MlxdError(
                Code.CONFLICT,
                f"mlxd is installed as a service, which listens on {path} and serves this "
                "home; to run mlxd by hand: mlxctl service stop",
            )
        return
    for listener in inherited.sockets:
        address = listener.getsockname()
        if address != os.fspath(path):
            raise MlxdError(
                Code.INTERNAL,
                f"the service manager made the control socket at {address}, and clients look "
                f"for it at {path}; write the service's files anew: mlxctl service install",
            )


def _listens(path: Path) -> bool:
    """Whether somebody does on this path; asking wakes a service manager's program."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # its backlog is full
            return True
        except OSError:
            return False
    return True


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


async def _accept(
    listener: socket.socket, context: SessionContext, peers: frozenset[int] | None
) -> None:
    served = 0

    async def serve(sock: socket.socket, fault: Fault | None) -> None:
        nonlocal served
        served += 1
        try:
            async with await accepted_unix(sock) as stream:
                if fault is None:
                    await Session(stream, context).serve()
                else:
                    await _turn_away(stream, fault)
        finally:
            served -= 1

    async with anyio.create_task_group() as sessions:
        while True:
            sock = await next_connection(listener)
            if served < CONNECTIONS_MAX + TURNED_AWAY_MAX:
                sessions.start_soon(serve, sock, _unwelcome(sock, served, peers))
            else:
                sock.close()


def _unwelcome(sock: socket.socket, served: int, peers: frozenset[int] | None) -> Fault | None:
    try:
        check_peer(sock, peers)
    except MlxdError as error:
        return error.fault
    if served >= CONNECTIONS_MAX:
        message = f"mlxd already has {CONNECTIONS_MAX} connections; close some and try again"
        return Fault(code=Code.QUEUE_FULL, message=message)
    return None


async def _turn_away(stream: AsyncioStream, fault: Fault) -> None:
    """Hear the peer's hello, so that it reads the answer to it, and say why not."""
    _log.warning("connection.refused", code=fault.code.value)
    with (
        anyio.move_on_after(TURN_AWAY_S),
        suppress(anyio.EndOfStream, anyio.BrokenResourceError),
    ):
        await stream.receive()
        await stream.send(encode_frame(Refusal(fault=fault)))
