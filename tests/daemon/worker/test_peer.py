"""One connection's frames: whole, in order, in time and within bounds."""

import socket
from collections.abc import Iterator

import anyio
import anyio.to_thread
import msgspec
import pytest

from daemon.wire.data import Delta
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import FrameReader, encode_frame
from daemon.worker import peer as module
from daemon.worker.peer import UNREAD_BYTES_MAX, Peer

pytestmark = pytest.mark.anyio


@pytest.fixture
def ends() -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    yield peer, theirs
    peer.close()
    theirs.close()


async def test_frames_come_whole_however_they_are_cut(ends: tuple[Peer, socket.socket]) -> None:
    peer, theirs = ends
    data = encode_frame(Delta(text="one")) + encode_frame(Delta(text="two"))
    theirs.send(data[:7])
    received = []

    async def receive() -> None:
        while (payload := await peer.receive()) is not None:
            received.append(payload)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        theirs.send(data[7:])
        theirs.shutdown(socket.SHUT_WR)
    assert received == FrameReader(1000).feed(data)


@pytest.mark.parametrize("text", ["caf\udce9", "x" * 10_000 + "\ud800"])
def test_what_is_not_utf_8_is_no_frame(text: str) -> None:
    with pytest.raises(MlxdError, match=r"(f.udce9|x.ud800)' is not UTF-8 text; ") as caught:
        encode_frame(Delta(text=text))
    assert caught.value.code is Code.INVALID_REQUEST
    assert len(str(caught.value)) < 200


async def test_a_frame_that_never_finishes(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRAME_TIMEOUT_S", 0.02)
    peer, theirs = ends
    whole = encode_frame(Delta(text="one"))
    theirs.send(whole + whole[:5])
    assert await peer.receive() is not None
    with pytest.raises(TimeoutError):
        await peer.receive()


async def test_a_frame_that_never_begins(ends: tuple[Peer, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        await ends[0].receive(timeout_s=0.02)


async def test_a_frame_beyond_the_bound_is_refused_by_its_length(
    ends: tuple[Peer, socket.socket],
) -> None:
    ends[1].send(b"\x7f\xff\xff\xff")
    with pytest.raises(MlxdError):
        await ends[0].receive()


async def test_what_the_kernel_does_not_take_is_kept_in_order_and_counted(
    ends: tuple[Peer, socket.socket],
) -> None:
    peer, theirs = ends
    sent = 0
    while peer.send(Delta(text=str(sent).rjust(50_000, "."), tokens=sent)):
        sent += 1
    assert sent * 50_000 > UNREAD_BYTES_MAX
    theirs.setblocking(False)
    reader = FrameReader(1 << 20)
    frames: list[bytes] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.flush_forever)
        while len(frames) <= sent:
            await anyio.wait_readable(theirs)
            frames += reader.feed(theirs.recv(1 << 16))
        await peer.drain()
        tasks.cancel_scope.cancel()
    tokens = [msgspec.msgpack.decode(frame, type=Delta).tokens for frame in frames]
    assert tokens == list(range(sent + 1))


async def test_a_peer_that_went_away_breaks_nothing(ends: tuple[Peer, socket.socket]) -> None:
    peer, theirs = ends
    theirs.close()
    assert peer.send(Delta(text="x"))
    assert peer.broken
    assert await peer.receive() is None
    await peer.drain()
    await peer.flush_forever()


async def test_frames_sent_together_leave_in_order_however_much_is_read(
    ends: tuple[Peer, socket.socket],
) -> None:
    peer, theirs = ends
    texts = ["a", "b" * 300_000, "c"]
    messages = [Delta(text=text) for text in texts]
    assert peer.send(*messages)
    whole = b"".join(map(encode_frame, messages))
    received = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.flush_forever)
        while len(received) < len(whole):
            received += await anyio.to_thread.run_sync(theirs.recv, 1 << 16)
        tasks.cancel_scope.cancel()
    assert received == whole
