"""The control socket: bound by ourselves, under the lock, for the owner only."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import UNIXSocketStream

from daemon.server.session import Session, SessionContext
from daemon.wire.control import Refusal
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import encode_frame
from daemon.wire.listening import next_connection
from daemon.wire.peer import check_peer

CONNECTIONS_MAX: Final = 256
TURNED_AWAY_MAX: Final = 16
"""Connections beyond the bound that are told so; more are closed without a word."""

TURN_AWAY_S: Final = 1.0
BACKLOG: Final = 128

_log = structlog.get_logger("server")


@asynccontextmanager
async def open_listener(path: Path, context: SessionContext) -> AsyncIterator[None]:
    """Accept and serve control connections for the length of the block.

    The caller holds the daemon's lock: a socket file that is already there belongs to
    nobody and is replaced.
    """
    listener = _bind(path)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_accept, listener, context)
            yield
            tasks.cancel_scope.cancel()
    finally:
        listener.close()
        os.unlink(path)  # noqa: PTH108 - pathlib is for threads here


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


async def _accept(listener: socket.socket, context: SessionContext) -> None:
    served = 0

    async def serve(sock: socket.socket, fault: Fault | None) -> None:
        nonlocal served
        served += 1
        try:
            async with await UNIXSocketStream.from_socket(sock) as stream:
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
                sessions.start_soon(serve, sock, _unwelcome(sock, served))
            else:
                sock.close()


def _unwelcome(sock: socket.socket, served: int) -> Fault | None:
    try:
        check_peer(sock)
    except MlxdError as error:
        return error.fault
    if served >= CONNECTIONS_MAX:
        message = f"mlxd already has {CONNECTIONS_MAX} connections; close some and try again"
        return Fault(code=Code.QUEUE_FULL, message=message)
    return None


async def _turn_away(stream: UNIXSocketStream, fault: Fault) -> None:
    """Hear the peer's hello, so that it reads the answer to it, and say why not."""
    _log.warning("connection.refused", code=fault.code.value)
    with (
        anyio.move_on_after(TURN_AWAY_S),
        suppress(anyio.EndOfStream, anyio.BrokenResourceError),
    ):
        await stream.receive()
        await stream.send(encode_frame(Refusal(fault=fault)))
