"""The daemon's end of the socket to one worker."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog
from anyio.abc import ByteStream

from daemon.wire import data as d
from daemon.wire.control import Hello
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, GARBLED
from daemon.wire.streams import HANDSHAKE_TIMEOUT_S, FrameStream, greet

DIAL_PATIENCE_S: Final = 3.0

_log = structlog.get_logger("supervisor")
_report: Final = msgspec.msgpack.Decoder(d.LinkReport)


class Link:
    """A greeted connection: commands out, reports in.

    Attributes:
        hosting: What the worker said of itself first.
    """

    def __init__(self, frames: FrameStream, hosting: d.Hosting) -> None:
        self.hosting = hosting
        self._frames = frames

    async def send(self, command: d.LinkCommand) -> None:
        await self._frames.send(command)

    async def reports(self) -> AsyncIterator[d.LinkReport]:
        """Reports until the connection ends; nonsense ends it too."""
        try:
            while True:
                yield _report.decode(await self._frames.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return
        except (*GARBLED, MlxdError) as error:
            _log.error("link.nonsense", worker=self.hosting.worker, error=str(error))


async def _dial(socket: Path) -> ByteStream:
    give_up_at = anyio.current_time() + DIAL_PATIENCE_S
    while True:
        try:
            return await anyio.connect_unix(socket)
        except (ConnectionRefusedError, FileNotFoundError):
            if anyio.current_time() >= give_up_at:
                raise
        await anyio.sleep(0.02)


@asynccontextmanager
async def open_link(socket: Path, generation: int) -> AsyncIterator[Link]:
    """Dial a worker as its daemon.

    One that an earlier daemon had just spawned may hold its lock and not listen yet.

    Raises:
        OSError: Nobody listens, nor has begun to within ``DIAL_PATIENCE_S``.
        MlxdError: The worker follows a newer daemon, or speaks another protocol.
    """
    hello = Hello(role="daemon", client="mlxd", pid=os.getpid(), generation=generation)
    async with await _dial(socket) as stream:
        frames, _ = await greet(stream, hello, CONTROL_FRAME_BYTES_MAX)
        with anyio.fail_after(HANDSHAKE_TIMEOUT_S):
            first = _report.decode(await frames.receive())
        if not isinstance(first, d.Hosting):
            raise MlxdError(Code.INTERNAL, f"the worker began with {type(first).__name__}")
        yield Link(frames, first)
