"""The control socket: bound by ourselves, under the lock, for the owner only."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import UNIXSocketStream

from daemon.server.session import Session, SessionContext
from daemon.wire.control import Refusal
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import encode_frame
from daemon.wire.peer import check_peer

CONNECTIONS_MAX: Final = 256
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

    async def serve(sock: socket.socket) -> None:
        nonlocal served
        served += 1
        try:
            async with await UNIXSocketStream.from_socket(sock) as stream:
                await Session(stream, context).serve()
        finally:
            served -= 1

    async with anyio.create_task_group() as sessions:
        while True:
            await anyio.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            sock.setblocking(False)
            fault = _unwelcome(sock, served)
            if fault is None:
                sessions.start_soon(serve, sock)
            else:
                _turn_away(sock, fault)


def _unwelcome(sock: socket.socket, served: int) -> Fault | None:
    try:
        check_peer(sock)
    except MlxdError as error:
        return error.fault
    if served >= CONNECTIONS_MAX:
        message = f"mlxd already has {CONNECTIONS_MAX} connections; close some and try again"
        return Fault(code=Code.QUEUE_FULL, message=message)
    return None


def _turn_away(sock: socket.socket, fault: Fault) -> None:
    _log.warning("connection.refused", code=fault.code.value)
    with sock:
        try:
            sock.send(encode_frame(Refusal(fault=fault)))
        except OSError:
            return  # it went away first: there is nobody to tell
