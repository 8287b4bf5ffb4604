"""Server-sent events: a response that begins late, keeps a waiting client, and ends well.

The form is https://html.spec.whatwg.org/multipage/server-sent-events.html: a line that begins
with a colon is a comment, which every client must ignore.
"""

from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from aiohttp import web

from daemon.wire import control as c
from daemon.wire.errors import Fault
from http_bridge.errors import openai_error

BEGIN_AFTER_S: Final = 2.0
"""Until then a failure can still be said with an HTTP status."""
KEEP_ALIVE_S: Final = 5.0

PROGRESS_HEADER: Final = "X-Mlxd-Progress"
"""A client that sends it with the value 1 gets events about the load that it waits for."""

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # proxies of the nginx family hold events back without it
}


Waiting = Callable[[str], bytes]
"""What a protocol sends while nothing else can be said, such as :func:`comment`."""


def comment(note: str) -> bytes:
    """A comment."""
    return b": " + note.encode() + b"\n\n"


def data_event(value: object) -> bytes:
    """``value`` as the JSON of an event without a name, which is what OpenAI's are."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def failure_event(fault: Fault) -> bytes:
    """The event that ends a stream of OpenAI's which has failed."""
    return data_event(openai_error(fault))


def progress_event(progress: c.Progress) -> bytes:
    """How a load goes on; no protocol has such an event, so that only who asks gets one."""
    said = {
        "model": progress.model,
        "phase": progress.phase,
        "done_bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
        "eta_ms": progress.eta_ms,
    }
    return b"event: mlxd.progress\ndata: " + msgspec.json.encode(said) + b"\n\n"


class EventStream:
    """One streamed response; its head is sent with the first event or comment.

    Args:
        waiting: What to send while nothing else can be said; None, for streams that are no
            events, sends nothing.
    """

    def __init__(
        self,
        request: web.Request,
        waiting: Waiting | None = comment,
        *,
        content_type: str = "text/event-stream; charset=utf-8",
        begin_after_s: float = BEGIN_AFTER_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self.response = web.StreamResponse(headers={**_HEADERS, "Content-Type": content_type})
        self._request = request
        self._waiting = waiting
        self._begin_after_s = begin_after_s
        self._keep_alive_s = keep_alive_s
        self._beginning = anyio.Lock()
        self._quiet = True
        self._waiting_for = "waiting"
        self._tells = request.headers.get(PROGRESS_HEADER) == "1"
        self._progress = anyio.Event()
        self._untold: c.Progress | None = None

    @property
    def begun(self) -> bool:
        """Whether the status is out, so that a failure has to be an event."""
        return self.response.prepared

    async def send(self, events: bytes) -> None:
        """Write a part of the answer, after the head if need be; waits while the client is slow.

        Raises:
            ConnectionResetError: The client is gone.
        """
        self._untold = None  # the load is over
        await self._write(events)

    async def _write(self, events: bytes) -> None:
        if not self.response.prepared:
            async with self._beginning:
                if not self.response.prepared:
                    await self.response.prepare(self._request)
        self._quiet = False
        await self.response.write(events)

    def note(self, progress: c.Progress) -> None:
        """Take what the next comment will say."""
        if progress.phase == "loading" and progress.total_bytes:
            percent = min(100, 100 * progress.done_bytes // progress.total_bytes)
            self._waiting_for = f"loading {percent} %"
        else:
            self._waiting_for = progress.phase
        if self._tells:
            self._untold = progress
            self._progress.set()

    async def keep_alive(self) -> None:
        """Say something whenever nothing else was sent for a while; runs until cancelled."""
        if self._waiting is None:
            return
        try:
            await self._pause(self._begin_after_s)
            while True:
                if untold := self._untold:
                    self._untold = None
                    await self._write(progress_event(untold))
                elif self._quiet:
                    await self._write(self._waiting(self._waiting_for))
                self._quiet = True
                await self._pause(self._keep_alive_s)
        except ConnectionResetError:
            return  # the client is gone: aiohttp cancels the handler, which says the rest

    async def _pause(self, seconds: float) -> None:
        """So long, or until there is progress to tell to who has asked for it."""
        with anyio.move_on_after(seconds):
            await self._progress.wait()
            self._progress = anyio.Event()

    async def end(self) -> None:
        """Close the stream in good order."""
        await self.response.write_eof()

    def cut(self) -> None:
        """End the connection, so that the client knows that something is missing."""
        if self._request.transport is not None:
            self._request.transport.abort()
