"""``mlxctl bench`` against a scripted worker: what it asks, and what it makes of the answers."""

import json

import anyio
import pytest

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.fakes.daemon import FakeModel, Line, open_fake_daemon

pytestmark = pytest.mark.anyio


async def test_alone_and_several_at_once_with_new_prompts(mlxctl: Ctl) -> None:
    at_work = 0
    most = 0

    async def script(line: Line, request: d.Generate) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        usage = d.Usage(prompt_tokens=100, completion_tokens=3, prefill_ms=50, cached_tokens=20)
        await line.send(d.Accepted(prompt_tokens=100))
        while request.max_tokens == 9 and len(daemon.requests) > 3 and most < 3:
            await anyio.lowlevel.checkpoint()  # the three of one run are here together
        await line.send(*(d.Delta(text="x", tokens=n) for n in (1, 2, 3)))
        at_work -= 1
        await line.send(d.Done(finish_reason="length", usage=usage))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon:
        arguments = ("bench", "tiny", "--streams", "3", "--runs", "2", "--prompt", "7")
        first = await mlxctl(*arguments, "--tokens", "9", "--json")
        again = await mlxctl(*arguments, "--tokens", "9")

    assert first.code == 0, first.err
    shape = json.loads(first.out)
    assert (shape["v"], shape["model"], shape["before"]) == (1, "tiny", None)
    assert [one["streams"] for one in shape["figures"]] == [1, 3]
    assert shape["figures"][0]["prefill_tokens_per_s"] == 1600.0
    alone = shape["figures"][0]
    assert alone["total_tokens_per_s"] == pytest.approx(alone["decode_tokens_per_s"], rel=0.01)
    assert shape["figures"][1]["prompt_tokens"] == 100
    assert shape["figures"][1]["completion_tokens"] == 3
    assert len(daemon.requests) == 18
    assert [request.max_tokens for request in daemon.requests[:9]] == [8, *[9] * 8], "a warm-up"
    prompts = [request.prompt for request in daemon.requests[:9]]
    assert len(set(prompts)) == 9, "one to warm up, 2 alone, 2 times 3 together, all new"
    assert {len(str(prompt).split()) for prompt in prompts} == {7}
    assert most == 3
    assert again.code == 0, again.err
    assert "Changes are against " in again.out
    assert len(await anyio.Path(mlxctl.home / "bench.jsonl").read_bytes()) > 0


async def test_a_model_that_says_nothing_is_measured_all_the_same(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        usage = d.Usage(prompt_tokens=5, completion_tokens=0)
        await line.send(d.Accepted(prompt_tokens=5), d.Done(finish_reason="stop", usage=usage))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        ended = await mlxctl("bench", "tiny", "--streams", "1", "--runs", "1")

    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[2].split()[3:] == ["-", "-", "-"]


async def test_a_failure_among_several_is_one_failure(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.INVALID_REQUEST, message="the prompt is too long")

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Fail(fault=fault))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        ended = await mlxctl("bench", "tiny")

    assert (ended.code, ended.out, ended.err) == (2, "", "mlxctl: the prompt is too long\n")
    assert not await anyio.Path(mlxctl.home / "bench.jsonl").exists()
