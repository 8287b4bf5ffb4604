"""Dialling a Unix socket, the fast way where there is one.

anyio's own stream registers the socket with the event loop anew for every read. On
asyncio a transport stays registered, which halves what a token costs the bridge (measured
at 4 streams: 0.20 ms to 0.13 ms of CPU a token).
"""

import asyncio

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream


class AsyncioStream(ByteStream):
    """A transport of asyncio as a byte stream; errors are those of anyio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await self._reader.read(max_bytes)
        except OSError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        if self._writer.is_closing():
            raise anyio.ClosedResourceError
        try:
            self._writer.write(item)
            await self._writer.drain()
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        self._writer.write_eof()

    async def aclose(self) -> None:
        # A peer that is gone, or does not read, must not hold up whoever lets go of it.
        self._writer.transport.abort()
        await anyio.lowlevel.checkpoint()  # the transport lets go of the socket in it


async def connect_unix(path: str) -> ByteStream:
    """A connection to the Unix socket at ``path``.

    Raises:
        OSError: Nobody listens there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # not on asyncio
        return await anyio.connect_unix(path)
    return AsyncioStream(*await asyncio.open_unix_connection(path))
