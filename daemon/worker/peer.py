"""One accepted connection: frames in, frames out, neither without bound."""

import socket
from typing import Final

import anyio
import msgspec

from daemon.wire.framing import DATA_FRAME_BYTES_MAX, FRAME_TIMEOUT_S, FrameReader, encode_frame

UNREAD_BYTES_MAX: Final = 1 << 20
"""Output that a client may leave unread, beyond what the kernel's buffer takes."""

FLUSH_TIMEOUT_S: Final = 5.0
_RECEIVE_BYTES: Final = 1 << 18


class Peer:
    """A non-blocking socket that frames are written to from the loop's callbacks.

    A frame is sent at once where the kernel takes it; only what it does not take waits
    for :meth:`flush_forever`. So a step costs one system call a row, and no task switch.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = FrameReader(DATA_FRAME_BYTES_MAX)
        self._payloads: list[bytes] = []
        self._unsent = bytearray()
        self._more = anyio.Event()
        self._empty = anyio.Event()
        self._empty.set()
        self.broken = False

    def send(self, *messages: msgspec.Struct) -> bool:
        """Write frames in one piece, or keep what is left until it can be.

        Returns:
            False once more than :data:`UNREAD_BYTES_MAX` waits to be read.
        """
        if self.broken:
            return True
        data = b"".join(map(encode_frame, messages))
        if not self._unsent:
            data = data[self._write(data) :]
        if data:
            self._unsent += data
            self._empty = anyio.Event()
            self._more.set()
        return len(self._unsent) <= UNREAD_BYTES_MAX

    async def flush_forever(self) -> None:
        """Write what waits, as the other side reads; returns when the connection breaks."""
        while not self.broken:
            await self._more.wait()
            self._more = anyio.Event()
            while self._unsent and not self.broken:
                await anyio.wait_writable(self._sock)
                del self._unsent[: self._write(self._unsent)]
            self._empty.set()

    async def drain(self) -> None:
        """Wait until everything is written, for as long as :data:`FLUSH_TIMEOUT_S`."""
        with anyio.move_on_after(FLUSH_TIMEOUT_S):
            await self._empty.wait()

    async def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next frame's payload; None at the end of the stream.

        Raises:
            MlxdError: A frame is larger than the bound.
            TimeoutError: No frame began within ``timeout_s``, or a started one did not
                finish within FRAME_TIMEOUT_S.
        """
        if not (self._payloads or self._reader.started):
            with anyio.fail_after(timeout_s):
                if not await self._take_in():
                    return None
        if not self._payloads:
            with anyio.fail_after(FRAME_TIMEOUT_S):
                while not self._payloads:
                    if not await self._take_in():
                        return None
        return self._payloads.pop(0)

    async def _take_in(self) -> bool:
        data = await self._read()
        self._payloads += self._reader.feed(data)
        return bool(data)

    async def _read(self) -> bytes:
        """Bytes, or none at the end; a connection that was reset has ended."""
        while True:
            await anyio.wait_readable(self._sock)
            try:
                return self._sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _write(self, data: bytes | bytearray) -> int:
        """How many bytes the kernel took."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True
            return len(data)

    def close(self) -> None:
        """Let go of the socket. Nobody may be waiting on it any more."""
        self.broken = True
        self._empty.set()
        self._sock.close()
