"""The control socket as a peer sees it: real frames to the shipped daemon."""

import os
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pytest

from daemon.app import Daemon
from daemon.pool import messages as m
from daemon.server import listener, session
from daemon.wire import control as c
from daemon.wire.client import Control, open_control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, encode_frame
from daemon.wire.locks import AlreadyRunning
from daemon.wire.paths import Home
from daemon.wire.streams import FrameStream, connect_unix
from tests.daemon.running import Asker, fake_model, running_daemon, temporary_home

pytestmark = pytest.mark.anyio

_any_answer = msgspec.msgpack.Decoder(c.ControlAnswer | c.Welcome | c.Refusal)
HELLO = c.Hello(client="test", pid=1)


@asynccontextmanager
async def daemon_at_home() -> AsyncIterator[tuple[Home, Daemon]]:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            yield home, daemon
            await daemon.stop("test")


@asynccontextmanager
async def raw(home: Home) -> AsyncIterator[FrameStream]:
    """A connection that has said nothing yet."""
    async with await connect_unix(str(home.control_socket)) as stream:
        yield FrameStream(stream, 1 << 30)


@asynccontextmanager
async def client(home: Home) -> AsyncIterator[Control]:
    async with open_control(str(home.control_socket), "test") as control:
        yield control


async def heard(frames: FrameStream) -> msgspec.Struct:
    with anyio.fail_after(10):
        answer: msgspec.Struct = _any_answer.decode(await frames.receive())
    return answer


async def greeted(frames: FrameStream) -> None:
    await frames.send(HELLO)
    assert isinstance(await heard(frames), c.Welcome)


async def test_greeting_names_version_and_server() -> None:
    async with daemon_at_home() as (home, _), client(home) as control:
        assert control.welcome.server == "mlxd"
        assert control.welcome.protocol == c.PROTOCOL_MAX
        assert control.welcome.pid == os.getpid()


async def test_another_protocol_is_refused_with_both_ranges() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await frames.send(c.Hello(client="new", pid=1, protocol_min=7, protocol_max=9))
        refusal = await heard(frames)
        assert isinstance(refusal, c.Refusal)
        assert refusal.fault.code is Code.PROTOCOL_MISMATCH
        assert "7 to 9" in refusal.fault.message


async def test_a_connection_that_does_not_begin_with_hello_is_refused() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await frames.send(c.GetStatus(id=1))
        refusal = await heard(frames)
        assert isinstance(refusal, c.Refusal)
        with pytest.raises(anyio.EndOfStream):
            await frames.receive()


async def test_unknown_types_and_wrong_fields_are_answered_and_the_session_goes_on() -> None:
    class Nonsense(msgspec.Struct, tag="nonsense", tag_field="type"):
        id: int

    class BadLoad(msgspec.Struct, tag="load", tag_field="type"):
        id: int
        model: int

    class DeepLoad(msgspec.Struct, tag="load", tag_field="type"):
        id: int
        model: msgspec.Raw

    deep = DeepLoad(id=8, model=msgspec.Raw(b"\x91" * 20_000 + b"\xc0"))
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await greeted(frames)
        await frames.send(deep)
        assert isinstance(await heard(frames), c.Failed), "nested too deeply to be decoded"
        for request, field in ((Nonsense(id=5), None), (BadLoad(id=6, model=3), "model")):
            await frames.send(request)
            failed = await heard(frames)
            assert isinstance(failed, c.Failed)
            assert failed.id == request.id
            assert failed.fault.code is Code.INVALID_REQUEST
            if field is not None:
                assert failed.fault.field == field
        await frames.send(c.GetStatus(id=7))
        assert isinstance(await heard(frames), c.StatusView)


async def test_a_frame_over_the_bound_ends_the_connection_unread() -> None:
    async with (
        daemon_at_home() as (home, _),
        await connect_unix(str(home.control_socket)) as stream,
    ):
        frames = FrameStream(stream, 1 << 30)
        await greeted(frames)
        await stream.send(struct.pack(">I", CONTROL_FRAME_BYTES_MAX + 1))
        refusal = await heard(frames)
        assert isinstance(refusal, c.Refusal)
        assert str(CONTROL_FRAME_BYTES_MAX) in refusal.fault.message


async def test_request_ids_in_flight_must_differ() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await greeted(frames)
        await frames.send(c.WatchEvents(id=1))
        assert isinstance(await heard(frames), c.WatchStarted)
        await frames.send(c.GetStatus(id=1))
        failed = await heard(frames)
        assert isinstance(failed, c.Failed)
        assert "in use" in failed.fault.message


async def test_watch_is_gapless_from_the_log_into_the_present() -> None:
    async with daemon_at_home() as (home, daemon):
        model = fake_model(home, "parrot")
        await Asker(daemon).load(model)
        async with client(home) as control, control.watch(after=0) as records:
            started = await anext(records)
            assert isinstance(started, c.WatchStarted)
            await Asker(daemon).unload(model)
            seqs: list[int] = []
            with anyio.fail_after(10):
                while len(seqs) < daemon.kernel.seq:
                    record = await anext(records)
                    assert isinstance(record, c.LogRecord)
                    seqs.append(record.seq)
            assert seqs == list(range(1, daemon.kernel.seq + 1))
            assert started.seq < daemon.kernel.seq


async def test_watch_without_follow_ends_at_the_logs_end() -> None:
    async with daemon_at_home() as (home, daemon), client(home) as control:
        async with control.watch(after=0, follow=False) as records:
            answers = [answer async for answer in records]
        assert isinstance(answers[-1], c.WatchEnded)
        assert answers[-1].reason == "end"
        assert [a.seq for a in answers if isinstance(a, c.LogRecord)] == [1]
        with pytest.raises(MlxdError, match="the log ends at seq 1"):
            async with control.watch(after=99) as records:
                await anext(records)
        assert daemon.kernel.seq == 1


async def test_cancelling_a_watch_frees_its_id() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await greeted(frames)
        await frames.send(c.WatchEvents(id=1))
        assert isinstance(await heard(frames), c.WatchStarted)
        await frames.send(c.CancelRequest(id=2, target=1))
        answers = [await heard(frames), await heard(frames)]
        assert {type(a) for a in answers} == {c.Failed, c.Cancelled}
        await frames.send(c.GetStatus(id=1))
        assert isinstance(await heard(frames), c.StatusView)


async def test_too_many_connections_are_turned_away_with_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 1)
    async with daemon_at_home() as (home, _), client(home):
        with pytest.raises(MlxdError) as caught:
            async with client(home):
                pass
        assert caught.value.code is Code.QUEUE_FULL


async def test_socket_and_folder_are_the_owners_alone() -> None:
    async with daemon_at_home() as (home, _):
        assert home.control_socket.stat().st_mode & 0o777 == 0o600
        assert home.run_dir.stat().st_mode & 0o777 == 0o700
    assert not home.control_socket.exists()


async def test_names_that_are_paths_are_refused() -> None:
    async with daemon_at_home() as (home, _), client(home) as control:
        for name in ("../etc", "/etc/passwd", "", "a\x00b", "x" * 300):
            with pytest.raises(MlxdError) as caught:
                await control.load(name)
            assert caught.value.code in (Code.INVALID_REQUEST, Code.NOT_FOUND)
        with pytest.raises(MlxdError) as caught:
            await control.acquire("no/such-model")
        assert caught.value.code is Code.NOT_FOUND
        with pytest.raises(MlxdError, match="ttl_s"):
            await control.load("mlxd/glimpse", ttl_s=-3)


async def test_an_estimate_changes_nothing_and_registers_no_name() -> None:
    async with daemon_at_home() as (home, daemon), client(home) as control:
        before, seq = daemon.kernel.pool, daemon.kernel.seq
        known = await control.estimate("mlxd/glimpse")
        folder = (await control.models()).models[0].path
        new = await control.estimate("mine", path=folder)

        assert (known.verdict, new.verdict) == ("loads", "loads")
        assert known.weights_bytes + known.overhead_bytes + known.kv_bytes == known.claim_bytes
        assert (new.model, new.claim_bytes) == ("mine", known.claim_bytes)
        assert daemon.kernel.pool == before
        assert daemon.kernel.seq == seq
        with pytest.raises(MlxdError) as caught:
            await control.estimate("mine")
        assert caught.value.code is Code.NOT_FOUND
        with pytest.raises(MlxdError, match="absolute path"):
            await control.estimate("mine", path="relative")


async def test_unquarantine_says_when_there_was_nothing_to_do() -> None:
    async with daemon_at_home() as (home, daemon), raw(home) as frames:
        model = fake_model(home, "parrot")
        await Asker(daemon).load(model)
        await greeted(frames)
        await frames.send(c.UnquarantineModel(id=1, model="parrot"))
        assert await heard(frames) == c.Ok(id=1, already=True)


async def test_a_priority_out_of_bounds_is_refused() -> None:
    async with daemon_at_home() as (home, _), client(home) as control:
        for priority in (-11, 11):
            with pytest.raises(MlxdError) as caught:
                await control.acquire("mlxd/glimpse", priority=priority)
            assert (caught.value.code, caught.value.fault.field) == (
                Code.INVALID_REQUEST, "priority",
            )  # fmt: skip


async def test_a_second_daemon_is_kept_out() -> None:
    async with daemon_at_home() as (home, _):
        with pytest.raises(AlreadyRunning):
            async with running_daemon(home):
                pass


async def test_a_bug_in_one_request_ends_that_request_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with daemon_at_home() as (home, daemon), client(home) as control:
        monkeypatch.setattr(daemon.catalog, "known", None)
        with pytest.raises(MlxdError) as caught:
            await control.models()
        assert caught.value.code is Code.INTERNAL
        assert (await control.status()).pid == os.getpid()


async def test_paths_that_no_system_call_takes_are_refused() -> None:
    async with daemon_at_home() as (home, _), client(home) as control:
        for path in ("/tmp/a\x00b", "relative", "/" + "x" * 5000):
            with pytest.raises(MlxdError) as caught:
                await control.load("name", path=path)
            assert caught.value.code is Code.INVALID_REQUEST


async def test_a_client_name_that_would_fill_the_log_is_refused() -> None:
    async with daemon_at_home() as (home, _):
        with pytest.raises(MlxdError) as caught:
            async with open_control(str(home.control_socket), "x" * 1000):
                pass
        assert caught.value.fault.field == "client"


async def test_running_out_of_descriptors_only_delays_a_connection() -> None:
    async with daemon_at_home() as (home, _):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dialled:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # none are left
            try:
                dialled.connect(str(home.control_socket))
                for _ in range(10):  # more than the loop needs to try to accept
                    await anyio.lowlevel.checkpoint()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        async with client(home) as control:
            assert (await control.status()).pid == os.getpid()


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "UNREAD_BYTES_MAX", 1 << 20)
    async with daemon_at_home() as (home, _), client(home) as other:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
            deaf.settimeout(10)
            deaf.connect(str(home.control_socket))
            deaf.sendall(encode_frame(HELLO))
            asked = b"".join(encode_frame(c.GetStatus(id=n)) for n in range(1, 1000))

            def ask_on() -> None:
                for _ in range(100):
                    deaf.sendall(asked)

            with pytest.raises(ConnectionError):
                await anyio.to_thread.run_sync(ask_on)
        assert (await other.status()).pid == os.getpid()


async def test_what_cannot_be_asked_of_a_resident_is_refused_without_a_trace() -> None:
    async with daemon_at_home() as (home, daemon), client(home) as control:
        name = "mlxd/glimpse"
        options, _ = await daemon.catalog.options(name, ())
        fake = fake_model(home, "parrot").model  # what a fake worker can load, under that key
        model = msgspec.structs.replace(options[0].model, kind="fake", path=fake.path)
        await Asker(daemon).load(m.Option(model=model))
        for _ in range(3):
            with pytest.raises(MlxdError, match="deadline_ms"):
                await control.acquire(name, deadline_ms=-1)
        assert daemon.kernel._asked == {}
        async with control.lease(name) as granted:
            assert granted.worker == "w1"


async def test_many_requests_in_flight_on_one_connection() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await greeted(frames)
        for number in range(1, 601):
            await frames.send(c.ListModels(id=number))
        answers = [await heard(frames) for _ in range(600)]
        assert {type(answer) for answer in answers} == {c.ModelsView}


async def test_a_request_that_is_cancelled_at_once_is_answered_once() -> None:
    async with daemon_at_home() as (home, _), raw(home) as frames:
        await greeted(frames)
        await frames.send_encoded(
            encode_frame(c.ListModels(id=1))
            + encode_frame(c.CancelRequest(id=2, target=1))
            + encode_frame(c.ListModels(id=3))
        )
        answers = [await heard(frames) for _ in range(3)]
        assert [(type(a), getattr(a, "id", 0)) for a in answers] == [
            (c.Failed, 1),
            (c.Cancelled, 2),
            (c.ModelsView, 3),
        ]


async def test_an_answer_that_fits_no_frame_ends_one_request_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "CONTROL_FRAME_BYTES_MAX", 300)
    async with daemon_at_home() as (home, daemon), client(home) as control:
        with pytest.raises(MlxdError, match="over the bound of 300") as caught:
            await control.models()
        assert caught.value.code is Code.INTERNAL
        await control.unpin("mlxd/glimpse")
        assert daemon.kernel.pool.slots == {}
