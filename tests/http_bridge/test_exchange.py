"""Exchanges with a scripted worker: frames in order, one failure, one more try."""

from pathlib import Path

import pytest

from daemon.wire import data as d
from daemon.wire.client import open_control
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.exchange import Call, open_exchange
from http_bridge.naming import Need
from tests.fakes.daemon import CallScript, FakeModel, Line, answers, open_fake_daemon, says

pytestmark = pytest.mark.anyio

END = d.Done(finish_reason="stop", usage=d.Usage(prompt_tokens=1, completion_tokens=0))
CALL = Call(
    model="m",
    needs=(Need(capability="embeddings"),),
    make=lambda granted: d.Embed(lease=granted.lease, inputs=("a",)),
    ttl_s=7,
)


async def exchanged(
    folder: Path, script: CallScript
) -> tuple[list[d.WorkAnswer], d.Done | Code | None]:
    """The frames that an exchange gives, and its end or failure."""
    frames: list[d.WorkAnswer] = []
    end: d.Done | Code | None
    model = FakeModel("m", says(), capabilities=("embeddings",), calls=script)
    async with (
        open_fake_daemon(folder, model) as fake,
        open_control(fake.control_socket, "test") as control,
    ):
        try:
            async with open_exchange(control, CALL, 1000) as exchange:
                assert exchange.model == "m"
                async for frame in exchange:
                    frames.append(frame)  # noqa: PERF401 - those before a failure count, too
            end = exchange.done
        except MlxdError as error:
            end = error.code
        await fake.ledger.wait_for("release lease-1")
    assert (fake.acquired[0].ttl_s, fake.acquired[0].deadline_ms) == (7, 1000)
    return frames, end


async def test_frames_come_in_order_and_end_with_done(folder: Path) -> None:
    middle = (d.Embeddings(vectors=(b"abcd",)), d.Embeddings(vectors=()))
    script = answers(d.Accepted(prompt_tokens=1), *middle, END)
    assert await exchanged(folder, script) == (list(middle), END)


async def test_one_frame_may_be_all(folder: Path) -> None:
    assert await exchanged(folder, answers(END)) == ([], END)


async def test_a_count_is_terminal(folder: Path) -> None:
    async def script(line: Line, _request: d.WorkRequest) -> None:
        await line.send(d.TokenCount(prompt_tokens=3))
        await line.until_closed()

    assert await exchanged(folder, script) == ([d.TokenCount(prompt_tokens=3)], None)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((d.Fail(fault=Fault(code=Code.INVALID_REQUEST, message="no")),), Code.INVALID_REQUEST),
        ((), Code.WORKER_FAILED),
        ((d.Accepted(prompt_tokens=1),), Code.WORKER_FAILED),
        (
            (d.Accepted(prompt_tokens=1), d.Fail(fault=Fault(code=Code.LAGGED, message="no"))),
            Code.LAGGED,
        ),
    ],
)
async def test_one_failure(folder: Path, frames: tuple[d.WorkAnswer, ...], code: Code) -> None:
    assert await exchanged(folder, answers(*frames)) == ([], code)


async def test_a_worker_that_cannot_be_reached_is_tried_once_more(folder: Path) -> None:
    model = FakeModel("m", says(), capabilities=("embeddings",), calls=answers(END))
    async with (
        open_fake_daemon(folder, model) as fake,
        open_control(fake.control_socket, "test") as control,
    ):
        (folder / "w-0.sock").unlink()
        with pytest.raises(MlxdError, match="could not be reached"):
            async with open_exchange(control, CALL, 1000):
                raise AssertionError("there is no worker")
        await fake.ledger.wait_for("release lease-2")
    assert fake.ledger.entries.count("acquire m") == 2
