"""A daemon's control socket that follows a test's script, in the real protocol.

For tests of mlxctl: every request arrives as a real frame on a real Unix socket and is
answered as the script says; what was asked is kept and can be waited for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import msgspec
from anyio.abc import ByteStream, TaskGroup

from daemon.wire import control as c
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX
from daemon.wire.streams import FrameStream

_hello = msgspec.msgpack.Decoder(c.Hello)
_request: msgspec.msgpack.Decoder[c.ControlRequest] = msgspec.msgpack.Decoder(c.ControlRequest)
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
_PATIENCE_S = 10

WELCOME = c.Welcome(protocol=1, server="mlxd", pid=812, version="0.9.0")
RequestT = TypeVar("RequestT", bound=c.Request)


class Asked:
    """One request, and the means to answer it."""

    def __init__(self, frames: FrameStream, stream: ByteStream, request: c.ControlRequest) -> None:
        self.request = request
        self.cancelled = anyio.Event()
        self._frames = frames
        self._stream = stream

    async def answer(self, *answers: c.Answer) -> None:
        """Send answers; their ids are filled in."""
        for answer in answers:
            await self._frames.send(msgspec.structs.replace(answer, id=self.request.id))

    async def hang_up(self) -> None:
        """End the connection, as the death of the daemon does."""
        await self._stream.aclose()


Part = Callable[[Asked], Awaitable[None]]


def says(*answers: c.Answer) -> Part:
    """Answers with these, in order."""

    async def part(asked: Asked) -> None:
        await asked.answer(*answers)

    return part


class ScriptedControl:
    """Made by :func:`open_scripted_control`.

    Attributes:
        hellos: How each connection introduced itself.
        requests: Everything that was asked, cancels included, in order.
        open: How many connections there are.
    """

    def __init__(self, script: dict[type[c.Request], Part], greeting: bytes | c.Frame) -> None:
        self.hellos: list[c.Hello] = []
        self.requests: list[c.ControlRequest] = []
        self.open = 0
        self._script = script
        self._greeting = greeting
        self._changed = anyio.Event()

    def only(self, kind: type[RequestT]) -> RequestT:
        """The one request of this kind."""
        found = [request for request in self.requests if isinstance(request, kind)]
        assert len(found) == 1, self.requests
        return found[0]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return once ``happened`` is true; fail the test after 10 s."""
        with anyio.move_on_after(_PATIENCE_S):
            while not happened():
                await self._changed.wait()
            return
        raise AssertionError(f"it did not happen; asked was {self.requests}")

    def _note(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def serve(self, stream: ByteStream) -> None:
        self.open += 1
        try:
            async with stream, anyio.create_task_group() as tasks:
                await self._converse(FrameStream(stream, CONTROL_FRAME_BYTES_MAX), stream, tasks)
                tasks.cancel_scope.cancel()
        finally:
            self.open -= 1
            self._note()

    async def _converse(self, frames: FrameStream, stream: ByteStream, tasks: TaskGroup) -> None:
        asked: dict[int, Asked] = {}
        try:
            self.hellos.append(_hello.decode(await frames.receive()))
            if isinstance(self._greeting, bytes):
                await stream.send(self._greeting)
            else:
                await frames.send(self._greeting)
            if not isinstance(self._greeting, c.Welcome):
                return
            while True:
                request = _request.decode(await frames.receive())
                self.requests.append(request)
                self._note()
                if isinstance(request, c.CancelRequest):
                    asked[request.target].cancelled.set()
                else:
                    asked[request.id] = Asked(frames, stream, request)
                    tasks.start_soon(self._perform, asked[request.id])
        except _GONE:
            return

    async def _perform(self, asked: Asked) -> None:
        try:
            await self._script[type(asked.request)](asked)
        except _GONE:
            return


@asynccontextmanager
async def open_scripted_control(
    socket: str,
    script: dict[type[c.Request], Part] | None = None,
    *,
    greeting: bytes | c.Frame = WELCOME,
) -> AsyncIterator[ScriptedControl]:
    """A scripted daemon listening on ``socket``.

    Args:
        script: What to do for each kind of request.
        greeting: The answer to a hello; raw bytes are sent as they are, and whatever is no
            welcome ends the connection.
    """
    scripted = ScriptedControl(script or {}, greeting)
    async with anyio.create_task_group() as tasks:
        listener = await anyio.create_unix_listener(socket)
        tasks.start_soon(listener.serve, scripted.serve)
        try:
            yield scripted
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await listener.aclose()
