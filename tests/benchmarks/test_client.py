"""The bench's client over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.client import Server, user
from benchmarks.sse import BadAnswer
from tests.benchmarks.test_sse import EVENTS, PLAIN_HEAD

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    """The client is asyncio's own."""
    return "asyncio"


pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(answer: Answering) -> AsyncIterator[Server]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield Server("test", listener.sockets[0].getsockname()[1], "m", {})


async def test_an_answer_is_read_to_its_end() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(PLAIN_HEAD + EVENTS)

    async with serving(answer) as server:
        answers = await server.ask_all(["a", "b", "c"], 2)
    assert [answer.said.text for answer in answers] == ["Hello"] * 3
    assert all(answer.ttft_ms > 0 for answer in answers)
    assert all(head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") for head in heads)


async def test_waiting_for_more_than_comes_says_so() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with (
        serving(answer) as server,
        server.opened(server.chat(user("hello"), 1)) as stream,
    ):
        with pytest.raises(BadAnswer, match="ended after"):
            await stream.until_arrivals(5)


async def test_leaving_the_block_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PLAIN_HEAD)
        try:
            while await reader.read(65_536):
                pass
        except ConnectionResetError:
            pass
        closed.set()

    async with serving(answer) as server:
        async with server.opened(server.chat(user("hello"), 1)) as stream:
            await stream.until_arrivals(1)
        async with asyncio.timeout(10):
            await closed.wait()


async def test_a_get_gives_its_status() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    async with serving(answer) as server:
        status, took_ms = await server.get("/healthz")
    assert status == 503
    assert took_ms > 0
