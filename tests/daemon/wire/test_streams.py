"""Streams over real sockets: order, pieces, ends, and peers that do not read."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from daemon.wire import control as c
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, FrameReader, encode_frame
from daemon.wire.streams import (
    UNTAKEN_BYTES_MAX,
    AsyncioStream,
    FrameStream,
    PostedFrames,
    accepted_unix,
    greet,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[AsyncioStream, socket.socket]]:
    """A stream, and the other end as a plain socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    with theirs:
        async with await accepted_unix(ours) as stream:
            yield stream, theirs


async def settled() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def test_what_is_written_leaves_in_order_and_by_itself() -> None:
    async with pair() as (stream, theirs):
        stream.write_soon(b"one ")
        stream.write_soon(b"two ")
        await stream.send(b"three")
        assert theirs.recv(100) == b"one two three"
        stream.write_soon(b"four ")
        assert stream.write_soon(b"five") == 9
        await settled()
        assert theirs.recv(100) == b"four five"


async def test_chunks_are_taken_as_small_as_asked_and_none_is_lost() -> None:
    async with pair() as (stream, theirs):
        theirs.sendall(b"abcdefgh")
        assert [await stream.receive(3), await stream.receive(3)] == [b"abc", b"def"]
        theirs.sendall(b"ij")
        theirs.close()
        assert await stream.receive(100) + await stream.receive(100) == b"ghij"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive(100)


async def test_a_peer_that_sends_too_much_waits_until_it_is_read() -> None:
    sent = 16 * UNTAKEN_BYTES_MAX
    async with pair() as (stream, theirs), anyio.create_task_group() as tasks:

        async def flood() -> None:
            await anyio.to_thread.run_sync(theirs.sendall, bytes(sent))

        tasks.start_soon(flood)
        while not stream._pipe._reading_paused:
            await anyio.lowlevel.checkpoint()
        assert stream._pipe._untaken_bytes < 4 * UNTAKEN_BYTES_MAX
        received = 0
        while received < sent:
            received += len(await stream.receive(1 << 20))
        assert received == sent


async def test_sending_waits_for_a_peer_that_does_not_read() -> None:
    data, sent = bytes(4 << 20), anyio.Event()

    async def send() -> None:
        await stream.send(data)
        await stream.flush()
        sent.set()

    async with pair() as (stream, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await settled()
        assert stream.untaken_bytes > 0
        assert not sent.is_set()
        got = 0
        while got < len(data):
            got += len(await anyio.to_thread.run_sync(theirs.recv, 1 << 16))
        await sent.wait()
        assert stream.untaken_bytes == 0


async def test_a_peer_that_is_gone_is_told_as_such() -> None:
    async with pair() as (stream, theirs):
        theirs.close()
        with suppress(anyio.BrokenResourceError):
            await stream.send(b"x")  # the system tells it at the first or at the next
        await settled()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
    with pytest.raises(anyio.ClosedResourceError):
        await stream.send(b"x")


async def test_a_reader_that_leaves_does_not_take_what_comes_next() -> None:
    async with pair() as (stream, theirs):
        with anyio.move_on_after(0):
            await stream.receive()
        theirs.sendall(b"later")
        assert await stream.receive() == b"later"


async def test_frames_that_are_posted_keep_their_order() -> None:
    async with pair() as (stream, theirs):
        frames = PostedFrames(stream, CONTROL_FRAME_BYTES_MAX)
        for number in range(3):
            frames.post(c.GetStatus(id=number))
        await frames.send(c.GetStatus(id=3))
        await frames.flush()
        payloads = FrameReader(1000).feed(theirs.recv(1000))
        assert payloads == [encode_frame(c.GetStatus(id=number))[4:] for number in range(4)]


async def test_what_is_behind_the_hello_does_not_wait_for_the_welcome() -> None:
    hello, request = c.Hello(client="t", pid=1), encode_frame(c.GetStatus(id=1))
    async with pair() as (stream, theirs), anyio.create_task_group() as tasks:
        welcomed: list[tuple[FrameStream, c.Welcome]] = []

        async def call() -> None:
            welcomed.append(await greet(stream, hello, CONTROL_FRAME_BYTES_MAX, request))

        tasks.start_soon(call)
        await settled()
        assert theirs.recv(1000) == encode_frame(hello) + request
        theirs.sendall(encode_frame(c.Welcome(protocol=1, server="s", pid=2, version="3")))
    assert welcomed[0][1].version == "3"
