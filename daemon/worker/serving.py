"""The socket side of a worker: an event loop in a thread of its own.

It accepts, greets, decodes and writes. It decides nothing about requests: those go to the
main thread through the inbox, and come back as :class:`~daemon.worker.inbox.Post`.
"""

import asyncio
import os
import socket
import threading
from typing import Any, Final

import anyio
import msgspec
import structlog

from daemon.wire.control import PROTOCOL_MAX, PROTOCOL_MIN, Hello, Refusal, Welcome
from daemon.wire.data import (
    Done,
    Fail,
    Hosting,
    LinkCommand,
    TokenCount,
    WorkAnswer,
    WorkRequest,
)
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import FRAME_TIMEOUT_S, GARBLED
from daemon.wire.listening import next_connection
from daemon.wire.peer import check_peer
from daemon.worker.inbox import Cancel, Command, Inbox, LinkDown, LinkUp, Post, Submit
from daemon.worker.peer import FLUSH_TIMEOUT_S, Peer

log = structlog.get_logger()

CONNECTIONS_MAX: Final = 256
"""Clients are turned away beyond this; a daemon that adopts never is, so its role must be
heard first, and connections that have not said hello may be as many again."""
REQUEST_TIMEOUT_S: Final = 30.0
"""From the greeting to the request of a client's connection."""

PENDING_BYTES_MAX: Final = 256 << 20
"""Request frames that the main thread has not yet taken up, all together."""

_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_REQUEST: Final[msgspec.msgpack.Decoder[WorkRequest]] = msgspec.msgpack.Decoder(WorkRequest)
_COMMAND: Final[msgspec.msgpack.Decoder[LinkCommand]] = msgspec.msgpack.Decoder(LinkCommand)


class _Client:
    """A connection whose request is with the main thread."""

    def __init__(self, peer: Peer, scope: anyio.CancelScope, pending_bytes: int) -> None:
        self.peer = peer
        self.scope = scope
        self.pending_bytes = pending_bytes


class _Link:
    """The daemon's connection."""

    def __init__(self, peer: Peer, scope: anyio.CancelScope) -> None:
        self.peer = peer
        self.scope = scope


class Sockets:
    """Serves one listening socket until it is stopped; an ``Outlet`` for the main thread."""

    def __init__(self, version: str, listener: socket.socket, inbox: Inbox) -> None:
        self._version = version
        self._listener = listener
        self._inbox = inbox
        self._hosting: Hosting
        self._clients: dict[int, _Client] = {}
        self._link: _Link | None = None
        self._generation = 0
        self._connections = 0
        self._greeted = 0
        self._pending_bytes = 0
        self._requests = 0
        self._loop: asyncio.AbstractEventLoop
        self._stop: anyio.Event
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sockets")

    # Called by the main thread.

    def start(self, hosting: Hosting) -> None:
        """Begin to accept; a link is told ``hosting`` until a post says otherwise."""
        self._hosting = hosting
        self._thread.start()
        self._up.wait()

    def post(self, post: Post) -> None:
        """Hand frames and reports to the loop; never blocks."""
        self._loop.call_soon_threadsafe(self._deliver, post)

    def stop(self) -> None:
        """Write what was posted before, as far as the others read it, and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # Everything below runs in the loop's thread.

    def _run(self) -> None:
        try:
            anyio.run(self._serve)
        except BaseException:
            # Without its sockets a worker is of no use to anybody; the lock is freed and the
            # daemon sees it go, without a bye.
            log.exception("sockets.failed")
            os._exit(70)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept)
            self._up.set()
            await self._stop.wait()
            with anyio.move_on_after(FLUSH_TIMEOUT_S):
                if self._link is not None:
                    await self._link.peer.drain()
                for client in list(self._clients.values()):
                    await client.peer.drain()
            tasks.cancel_scope.cancel()

    async def _accept(self) -> None:
        async with anyio.create_task_group() as connections:
            while True:
                sock = await next_connection(self._listener)
                connections.start_soon(self._connection, sock)

    async def _connection(self, sock: socket.socket) -> None:
        peer = Peer(sock)
        self._connections += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer.flush_forever)
                await self._converse(peer, sock)
                await peer.drain()
                tasks.cancel_scope.cancel()
        finally:
            self._connections -= 1
            peer.close()

    async def _converse(self, peer: Peer, sock: socket.socket) -> None:
        try:
            check_peer(sock)
            _check_room(self._connections, 2 * CONNECTIONS_MAX)
            hello = await self._greeting(peer)
            if hello is not None and hello.role == "daemon":
                await self._serve_link(peer, hello)
            elif hello is not None:
                _check_room(self._greeted + 1, CONNECTIONS_MAX)
                self._greeted += 1
                try:
                    peer.send(self._welcome(hello))
                    await self._serve_client(peer)
                finally:
                    self._greeted -= 1
        except MlxdError as error:
            peer.send(Refusal(fault=error.fault))
        except TimeoutError:
            fault = Fault(code=Code.INVALID_REQUEST, message="no complete frame came in time")
            peer.send(Refusal(fault=fault))

    async def _greeting(self, peer: Peer) -> Hello | None:
        payload = await peer.receive(FRAME_TIMEOUT_S)
        if payload is None:
            return None
        hello: Hello = _decode(_HELLO, payload)
        if hello.protocol_max < PROTOCOL_MIN or hello.protocol_min > PROTOCOL_MAX:
            raise MlxdError(
                Code.PROTOCOL_MISMATCH,
                f"this worker speaks protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, the caller "
                f"{hello.protocol_min} to {hello.protocol_max}; use one release for both",
            )
        return hello

    def _welcome(self, hello: Hello) -> Welcome:
        return Welcome(
            protocol=min(hello.protocol_max, PROTOCOL_MAX),
            server="worker",
            pid=os.getpid(),
            version=self._version,
        )

    async def _serve_client(self, peer: Peer) -> None:
        """One request; its connection's end is its cancellation."""
        payload = await peer.receive(REQUEST_TIMEOUT_S)
        if payload is None:
            return
        try:
            request = self._request(payload)
        except MlxdError as error:
            peer.send(Fail(fault=error.fault))
            return
        self._requests += 1
        request_id = self._requests
        with anyio.CancelScope() as scope:
            self._clients[request_id] = _Client(peer, scope, len(payload))
            self._pending_bytes += len(payload)
            self._inbox.put(Submit(request_id, request))
            del request, payload
            try:
                await peer.receive()
            finally:
                self._forget(request_id)

    def _request(self, payload: bytes) -> WorkRequest:
        request: WorkRequest = _decode(_REQUEST, payload)
        if self._pending_bytes + len(payload) > PENDING_BYTES_MAX:
            raise MlxdError(Code.QUEUE_FULL, "too many requests wait; try again later")
        return request

    def _forget(self, request_id: int) -> None:
        """The client is gone, unless its request has ended already."""
        client = self._clients.pop(request_id, None)
        if client is not None:
            self._pending_bytes -= client.pending_bytes
            self._inbox.put(Cancel(request_id))

    async def _serve_link(self, peer: Peer, hello: Hello) -> None:
        if hello.generation < self._generation:
            raise MlxdError(
                Code.CONFLICT,
                f"a daemon of generation {self._generation} has this worker, and generation "
                f"{hello.generation} is older",
            )
        self._generation = hello.generation
        if self._link is not None:
            self._link.scope.cancel()
        with anyio.CancelScope() as scope:
            link = self._link = _Link(peer, scope)
            peer.send(self._welcome(hello))
            peer.send(self._hosting)
            self._inbox.put(LinkUp())
            try:
                await self._read_commands(peer)
            finally:
                if self._link is link:
                    self._link = None
                    self._inbox.put(LinkDown())

    async def _read_commands(self, peer: Peer) -> None:
        while (payload := await peer.receive()) is not None:
            try:
                command: LinkCommand = _decode(_COMMAND, payload)
            except MlxdError as error:
                # A newer daemon may know more commands; there is no report to refuse with.
                log.warning("link.command_unknown", error=error.fault.message)
            else:
                self._inbox.put(Command(command))

    def _deliver(self, post: Post) -> None:
        """Reports go first: the daemon knows that a request runs before its client does."""
        if post.hosting is not None:
            self._hosting = post.hosting
        for report in post.reports:
            if self._link is not None and not self._link.peer.send(report):
                log.warning("link.lagged")
                self._link.scope.cancel()
        for request_id, frames in _by_request(post.frames).items():
            self._give(request_id, frames)

    def _give(self, request_id: int, frames: list[WorkAnswer]) -> None:
        client = self._clients.get(request_id)
        if client is None:
            return
        self._pending_bytes -= client.pending_bytes
        client.pending_bytes = 0
        keeps_up = client.peer.send(*frames)
        if isinstance(frames[-1], Done | Fail | TokenCount):
            del self._clients[request_id]
            client.scope.cancel()
        elif not keeps_up:
            message = "the client did not read its stream; read faster or ask for less at once"
            client.peer.send(Fail(fault=Fault(code=Code.LAGGED, message=message)))
            self._forget(request_id)
            client.scope.cancel()


def _by_request(frames: tuple[tuple[int, WorkAnswer], ...]) -> dict[int, list[WorkAnswer]]:
    """What each request is told, in order: the first token comes with the acceptance, and the
    last with the end, so each pair leaves in one piece."""
    found: dict[int, list[WorkAnswer]] = {}
    for request_id, frame in frames:
        found.setdefault(request_id, []).append(frame)
    return found


def _check_room(connections: int, connections_max: int) -> None:
    if connections > connections_max:
        raise MlxdError(
            Code.QUEUE_FULL,
            f"this worker already has {connections_max} connections; try again later",
        )


def _decode(decoder: msgspec.msgpack.Decoder[Any], payload: bytes) -> Any:
    """A message from a frame's payload.

    Raises:
        MlxdError: ``invalid_request``, naming the field where msgspec does.
    """
    try:
        return decoder.decode(payload)
    except GARBLED as error:
        _, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".") or None
        raise MlxdError(Code.INVALID_REQUEST, f"not understood: {error}", field=field) from error
