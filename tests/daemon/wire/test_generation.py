"""Requests to workers: the one rule of trying again, and requests too large for one piece."""

from pathlib import Path

import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import open_control
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.generation import TOGETHER_BYTES_MAX, generate
from tests.fakes.daemon import FakeModel, Line, Script, open_fake_daemon, says

pytestmark = pytest.mark.anyio


def asked(text: str) -> d.ChatMessage:
    return d.ChatMessage(role="user", parts=(d.TextPart(text=text),))


async def generated(folder: Path, script: Script, text: str = "hi") -> tuple[str, list[str]]:
    """What came, or the code of the failure; and what the daemon and the worker saw."""

    def make(granted: c.Granted) -> d.Generate:
        return d.Generate(lease=granted.lease, messages=(asked(text),))

    async with open_fake_daemon(folder, FakeModel("m", script)) as fake:
        async with open_control(fake.control_socket, "test") as control:
            try:
                async with generate(control, "m", make, client="test") as (_, generation):
                    said = "".join([delta.text async for delta in generation])
            except MlxdError as error:
                said = error.code.value
        await fake.ledger.wait_for("disconnect")
        assert [request.messages for request in fake.requests[-1:]] == [(asked(text),)]
        return said, [entry for entry in fake.ledger.entries if entry.startswith(("gr", "acc"))]


def failing(times: int, code: Code) -> Script:
    """A worker that refuses so often and then serves."""
    left = times

    async def script(line: Line, request: d.Generate) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            await line.send(d.Fail(fault=Fault(code=code, message="not now")))
        else:
            await says("ok")(line, request)

    return script


ONCE = ["grant lease-1", "accept lease-1"]
TWICE = [*ONCE, "grant lease-2", "accept lease-2"]


async def test_a_worker_that_was_leaving_is_tried_once_more(folder: Path) -> None:
    assert await generated(folder, failing(1, Code.BUSY)) == ("ok", TWICE)


async def test_and_only_once(folder: Path) -> None:
    assert await generated(folder, failing(2, Code.BUSY)) == ("busy", TWICE)


async def test_no_other_refusal_is_tried_again(folder: Path) -> None:
    code = Code.INVALID_REQUEST
    assert await generated(folder, failing(1, code)) == (code.value, ONCE)


@pytest.mark.parametrize("size", [10, TOGETHER_BYTES_MAX - 1000, TOGETHER_BYTES_MAX, 3 << 20])
async def test_requests_of_every_size_arrive_whole(folder: Path, size: int) -> None:
    assert await generated(folder, says("ok"), "x" * size) == ("ok", ONCE)
