"""A client that costs little: bytes are kept with their time and understood afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from benchmarks.sse import Answer, Arrival, BadAnswer, Transcript, transcript

TIMEOUT_S = 300.0


class Stream(asyncio.Protocol):
    """One request on a connection of its own.

    Attributes:
        sent_s: When dialling began: what a user waits for includes it.
        arrivals: What came, and when (``time.perf_counter``).
    """

    def __init__(self, request: bytes) -> None:
        self.sent_s = time.perf_counter()
        self.arrivals: list[Arrival] = []
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.arrivals.append((time.perf_counter(), data))
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._ended.set()
        self._changed.set()

    async def until_arrivals(self, count: int) -> None:
        """Wait until so many pieces have come.

        Raises:
            BadAnswer: The answer ended before.
        """
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.arrivals) < count:
                if self._ended.is_set():
                    raise BadAnswer(f"ended after {len(self.arrivals)} pieces: {self.arrivals}")
                self._changed.clear()
                await self._changed.wait()

    async def until_end(self) -> None:
        """Wait until the server has closed the connection, as it was asked to."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._ended.wait()

    def close(self) -> None:
        """Go away, which cancels."""
        if self._transport is not None:
            self._transport.abort()


class Asked(msgspec.Struct, frozen=True):
    """A finished stream and when it was asked for."""

    sent_s: float
    said: Transcript

    @property
    def ttft_ms(self) -> float:
        """From dialling to the first text."""
        return (self.said.texts_s[0] - self.sent_s) * 1000


class Server(msgspec.Struct, frozen=True):
    """Somebody who speaks OpenAI's protocol on loopback.

    Attributes:
        model: What requests name; None names nothing.
        pids: Its processes by role, for their processor time.
    """

    name: str
    port: int
    model: str | None
    pids: dict[str, int]

    def chat(self, messages: list[dict[str, str]], tokens: int) -> bytes:
        """A request for a greedy, streamed answer of at most ``tokens`` tokens."""
        body: dict[str, Any] = {
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.model is not None:
            body["model"] = self.model
        return _request("POST", "/v1/chat/completions", msgspec.json.encode(body))

    async def ask(self, messages: list[dict[str, str]], tokens: int) -> Asked:
        """The whole answer to one request."""
        return _understood(await self._heard(messages, tokens))

    async def ask_all(self, prompts: list[str], tokens: int) -> list[Asked]:
        """The answers to requests that are all sent at once."""
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._heard(user(prompt), tokens)) for prompt in prompts]
        return [_understood(task.result()) for task in asking]

    async def _heard(self, messages: list[dict[str, str]], tokens: int) -> Stream:
        """A finished stream, not yet understood: others must not wait for that."""
        async with self.opened(self.chat(messages, tokens)) as stream:
            await stream.until_end()
            return stream

    async def get(self, path: str) -> tuple[int, float]:
        """Status of a GET, and how many milliseconds it took."""
        async with self.opened(_request("GET", path, b"")) as stream:
            await stream.until_end()
            answer = Answer()
            for _, data in stream.arrivals:
                answer.feed(data)
            return answer.status, (stream.arrivals[-1][0] - stream.sent_s) * 1000

    @asynccontextmanager
    async def opened(self, request: bytes) -> AsyncIterator[Stream]:
        """A request under way; leaving the block goes away."""
        loop = asyncio.get_running_loop()
        stream = Stream(request)
        await loop.create_connection(lambda: stream, "127.0.0.1", self.port)
        try:
            yield stream
        finally:
            stream.close()


def _understood(stream: Stream) -> Asked:
    return Asked(stream.sent_s, transcript(stream.arrivals))


def user(prompt: str) -> list[dict[str, str]]:
    """A conversation that begins with ``prompt``."""
    return [{"role": "user", "content": prompt}]


def _request(method: str, path: str, body: bytes) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
