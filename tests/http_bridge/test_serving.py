"""Streams and whole answers: the official client against a bridge and a scripted daemon."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import msgspec
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from prometheus_client import CollectorRegistry

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.link import open_link
from http_bridge.metrics import Metrics
from http_bridge.openai_completions import CompletionReply, read_completion
from http_bridge.plan import Plan, total_usage
from http_bridge.serving import Serving
from tests.fakes.daemon import FakeModel, Line, Report, Script, open_fake_daemon, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

HELLO: ChatCompletionMessageParam = {"role": "user", "content": "Hello"}


async def test_whole_answer(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("org/m", says("Par", "is", "."))) as setup:
        answer = await setup.sdk.chat.completions.create(
            model="org/m",
            messages=[{"role": "user", "content": "Capital?"}],
            temperature=0,
            extra_body={"keep_alive": "5m"},
        )
        await setup.fake.ledger.wait_for("release lease-1")
    choice = answer.choices[0]
    assert answer.id.startswith("chatcmpl-")
    assert (answer.model, answer.object) == ("org/m", "chat.completion")
    assert (choice.message.role, choice.message.content) == ("assistant", "Paris.")
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    acquired = setup.fake.acquired[0]
    assert (acquired.needs, acquired.ttl_s, acquired.deadline_ms) == (("chat",), 300, 300_000)
    request = setup.fake.requests[0]
    assert request.lease == "lease-1"
    assert request.request == answer.id
    assert request.sampling == d.Sampling(temperature=0.0)


async def test_streamed_answer_has_one_chunk_a_step(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says("x <", " y", finish_reason="length"))) as setup:
        stream = await setup.sdk.chat.completions.create(
            model="m", messages=[HELLO], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        await setup.fake.ledger.wait_for("release lease-1")
    *spoken, usage = chunks
    assert [chunk.choices[0].delta.content for chunk in spoken] == ["", "x <", " y", None]
    assert [chunk.choices[0].delta.role for chunk in spoken] == ["assistant", None, None, None]
    assert [chunk.choices[0].finish_reason for chunk in spoken] == [None, None, None, "length"]
    assert all(chunk.usage is None for chunk in spoken)
    assert usage.choices == []
    assert usage.usage is not None
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (5, 2)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_plain_completions(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says("lo", " wo"))) as setup:
        whole = await setup.sdk.completions.create(model="m", prompt=[1, 2, 3])
        stream = await setup.sdk.completions.create(model="m", prompt="Hel", stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == "lo wo"
    assert texts == ["lo", " wo", ""]
    assert [request.prompt for request in setup.fake.requests] == [(1, 2, 3), "Hel"]
    assert setup.fake.requests[0].max_tokens == 16


def hangs_after(*frames: d.DataAnswer) -> Script:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(*frames)
        await line.until_closed()

    return script


async def test_closing_a_stream_early_cancels(open_setup: OpenSetup) -> None:
    script = hangs_after(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))
    async with open_setup(FakeModel("m", script)) as setup:
        stream = await setup.sdk.chat.completions.create(model="m", messages=[HELLO], stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content == "a":
                break
        await stream.close()
        await setup.fake.ledger.wait_for("worker closed lease-1")
        await setup.fake.ledger.wait_for("release lease-1")


async def test_leaving_while_a_whole_answer_is_made_cancels(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", hangs_after(d.Accepted(prompt_tokens=1)))) as setup:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await setup.sdk.chat.completions.create(model="m", messages=[HELLO])

            tasks.start_soon(ask)
            await setup.fake.ledger.wait_for("accept lease-1")
            tasks.cancel_scope.cancel()
        await setup.fake.ledger.wait_for("worker closed lease-1")
        await setup.fake.ledger.wait_for("release lease-1")


async def test_leaving_while_a_model_loads_withdraws(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says("never"), load=lambda _: anyio.sleep_forever())) as s:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await s.sdk.chat.completions.create(model="m", messages=[HELLO], stream=True)

            tasks.start_soon(ask)
            await s.fake.ledger.wait_for("acquire m")
            tasks.cancel_scope.cancel()
        await s.fake.ledger.wait_for("cancel")


async def test_a_worker_that_dies_in_a_stream_gives_one_error(open_setup: OpenSetup) -> None:
    async def dies(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))

    async with open_setup(FakeModel("m", dies)) as setup:
        stream = await setup.sdk.chat.completions.create(model="m", messages=[HELLO], stream=True)
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        assert (await anext(stream)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="worker process ended") as caught:
            await anext(stream)
        await setup.fake.ledger.wait_for("release lease-1")
    assert caught.value.code == "worker_failed"


async def test_a_failed_stream_ends_without_done(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.LAGGED, message="too slow")
    script = hangs_after(d.Accepted(prompt_tokens=1), d.Fail(fault=fault))
    async with open_setup(FakeModel("m", script)) as setup:
        body = {"model": "m", "messages": [HELLO], "stream": True}
        response = await setup.http.post("/v1/chat/completions", json=body)
    events = response.text.split("\n\n")
    assert response.status_code == 200
    assert '"error":{"message":"too slow"' in events[-2]
    assert events[-1] == ""
    assert "[DONE]" not in response.text


async def test_what_is_wrong_at_first_is_said_with_a_status(open_setup: OpenSetup) -> None:
    async def refuses(line: Line, _request: d.Generate) -> None:
        fault = Fault(code=Code.INVALID_REQUEST, message="prompt too long", field="messages")
        await line.send(d.Fail(fault=fault))

    async with open_setup(FakeModel("m", refuses)) as setup:
        with pytest.raises(openai.BadRequestError, match="prompt too long") as caught:
            await setup.sdk.chat.completions.create(model="m", messages=[HELLO], stream=True)
        await setup.fake.ledger.wait_for("release lease-1")
    assert caught.value.param == "messages"


async def test_a_draining_worker_is_asked_for_again_once(open_setup: OpenSetup) -> None:
    async def drains(line: Line, request: d.Generate) -> None:
        if request.lease == "lease-1":
            await line.send(d.Fail(fault=Fault(code=Code.BUSY, message="draining")))
        else:
            await says("ok")(line, request)

    async with open_setup(FakeModel("m", drains)) as setup:
        answer = await setup.sdk.chat.completions.create(model="m", messages=[HELLO])
    assert answer.choices[0].message.content == "ok"
    assert setup.fake.ledger.entries.count("acquire m") == 2


async def test_a_stream_that_waits_for_a_load_is_kept_alive(open_setup: OpenSetup) -> None:
    go = anyio.Event()

    async def load(report: Report) -> None:
        await report(c.Progress(id=0, model="m", phase="loading", done_bytes=42, total_bytes=100))
        await go.wait()

    model = FakeModel("m", says("ok"), load=load)
    async with open_setup(model, begin_after_s=0.05, keep_alive_s=0.05) as setup:
        body = {"model": "m", "messages": [HELLO], "stream": True}
        async with setup.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line async for line in _until_comments(response.aiter_lines(), 2, go)]
    assert response.status_code == 200
    assert lines[0] == lines[2] == ": loading 42 %"
    assert lines[-2] == "data: [DONE]"


async def test_who_asks_hears_at_once_how_a_load_goes(open_setup: OpenSetup) -> None:
    told, go = anyio.Event(), anyio.Event()

    async def load(report: Report) -> None:
        queued = c.Progress(id=0, model="m", phase="queued", eta_ms=900)
        await report(queued)
        await told.wait()
        await report(c.Progress(id=0, model="m", phase="loading", done_bytes=4, total_bytes=8))
        await go.wait()

    async with open_setup(FakeModel("m", says("ok"), load=load)) as setup:
        body = {"model": "m", "messages": [HELLO], "stream": True}
        request = setup.http.stream(
            "POST", "/v1/chat/completions", json=body, headers={"X-Mlxd-Progress": "1"}
        )
        lines: list[str] = []
        async with request as response:
            async for line in response.aiter_lines():
                lines.append(line)
                if lines.count("event: mlxd.progress") == 1:
                    told.set()
                if lines.count("event: mlxd.progress") == 2:
                    go.set()
    assert lines[:6] == [
        "event: mlxd.progress",
        'data: {"model":"m","phase":"queued","done_bytes":0,"total_bytes":0,"eta_ms":900}',
        "",
        "event: mlxd.progress",
        'data: {"model":"m","phase":"loading","done_bytes":4,"total_bytes":8,"eta_ms":null}',
        "",
    ]
    assert lines.count("event: mlxd.progress") == 2
    assert lines[-2] == "data: [DONE]"


async def _until_comments(
    lines: AsyncIterator[str], count: int, go: anyio.Event
) -> AsyncIterator[str]:
    """Pass lines on; let the load go on when ``count`` comments have come."""
    seen = 0
    async for line in lines:
        seen += line.startswith(":")
        if seen == count:
            go.set()
        yield line


async def test_a_failure_after_keep_alives_is_an_error_event(open_setup: OpenSetup) -> None:
    async def load(_report: Report) -> None:
        await commented.wait()
        raise MlxdError(Code.INCOMPATIBLE, "a shard is missing")

    commented = anyio.Event()
    model = FakeModel("m", says("never"), load=load)
    async with open_setup(model, begin_after_s=0.01, keep_alive_s=0.01) as setup:
        body = {"model": "m", "messages": [HELLO], "stream": True}
        async with setup.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line async for line in _until_comments(response.aiter_lines(), 1, commented)]
    assert '"message":"a shard is missing"' in lines[-2]
    assert '"code":"incompatible"' in lines[-2]


async def test_reasoning_and_tool_calls_are_streamed(open_setup: OpenSetup) -> None:
    calls = tuple(d.ToolCall(id=f"call_{n}", name="get", arguments='{"n":1}') for n in range(3))

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(
            d.Accepted(prompt_tokens=1),
            d.Delta(reasoning="hm", tokens=1),
            d.Delta(tool_calls=calls[:2], tokens=2),
            d.Delta(tokens=3),
            d.Delta(tool_calls=calls[2:], tokens=4),
            d.Done(
                finish_reason="tool_calls",
                usage=d.Usage(prompt_tokens=1, completion_tokens=4, cached_tokens=1),
            ),
        )

    tools: list[ChatCompletionToolParam] = [
        {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
    ]
    async with open_setup(FakeModel("m", script)) as setup:
        stream = await setup.sdk.chat.completions.create(
            model="m", messages=[HELLO], stream=True, tools=tools
        )
        chunks = [chunk async for chunk in stream]
        whole = await setup.sdk.chat.completions.create(model="m", messages=[HELLO], tools=tools)
    streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id) for call in streamed] == [(n, f"call_{n}") for n in range(3)]
    assert len(chunks) == 5
    assert chunks[1].choices[0].delta.model_extra == {"reasoning_content": "hm"}
    message = whole.choices[0].message
    assert message.content is None
    assert [call.id for call in message.tool_calls or ()] == ["call_0", "call_1", "call_2"]
    assert whole.usage is not None
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 1
    assert setup.fake.requests[0].tools == tuple(tools)
    assert setup.fake.acquired[0].needs == ("chat", "tools")


async def test_stopping_ends_streams_with_an_error(open_setup: OpenSetup) -> None:
    script = hangs_after(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))
    caught: list[openai.APIError] = []
    async with anyio.create_task_group() as tasks, open_setup(FakeModel("m", script)) as setup:
        sdk = openai.AsyncOpenAI(base_url=setup.sdk.base_url, api_key="x", max_retries=0)
        stream = await sdk.chat.completions.create(model="m", messages=[HELLO], stream=True)
        started = anyio.Event()

        async def read() -> None:
            try:
                async for chunk in stream:
                    if chunk.choices[0].delta.content == "a":
                        started.set()
            except openai.APIError as error:
                caught.append(error)

        tasks.start_soon(read)
        await started.wait()
    await sdk.close()
    assert [error.code for error in caught] == ["shutting_down"]


async def test_stopping_waits_for_what_runs_and_refuses_what_comes(folder: Path) -> None:
    go = anyio.Event()
    answers: list[web.StreamResponse] = []
    order: list[str] = []

    async def waits(line: Line, request: d.Generate) -> None:
        await go.wait()
        await says("done")(line, request)

    plan, _ = read_completion(b'{"model":"m","prompt":"x"}', "cmpl-1")
    reply = CompletionReply(request_id="cmpl-1", created_s=0, include_usage=False)
    request = make_mocked_request("POST", "/")
    async with (
        open_fake_daemon(folder, FakeModel("m", waits)) as fake,
        open_link(fake.control_socket) as link,
        anyio.create_task_group() as tasks,
    ):
        serving = Serving(link, Metrics(CollectorRegistry()))

        async def ask() -> None:
            answers.append(await serving.answer(request, plan, reply))
            order.append("answered")

        async def stop() -> None:
            await serving.stop(grace_s=5)
            order.append("stopped")

        tasks.start_soon(ask)
        await fake.ledger.wait_for("accept lease-1")
        tasks.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(MlxdError) as caught:
            await serving.answer(request, plan, reply)
        go.set()
    assert caught.value.code is Code.SHUTTING_DOWN
    assert order == ["answered", "stopped"]
    assert answers[0].status == 200


async def test_deltas_that_have_come_together_are_one_write(open_setup: OpenSetup) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        usage = d.Usage(prompt_tokens=1, completion_tokens=3)
        await line.send_at_once(
            d.Accepted(prompt_tokens=1),
            d.Delta(text="a", tokens=1),
            d.Delta(text="b", tokens=2),
            d.Delta(text="c", tokens=3),
            d.Done(finish_reason="stop", usage=usage),
        )

    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    answer = b""
    async with (
        open_setup(FakeModel("m", script)) as setup,
        await anyio.connect_tcp("127.0.0.1", setup.http.base_url.port or 0) as stream,
    ):
        await stream.send(head % len(body) + body)
        with anyio.fail_after(5):
            async for piece in stream:
                answer += piece
    assert [chunk.count(b'"delta":{"content":"') for chunk in http_chunks(answer)] == [0, 3, 0]


def http_chunks(answer: bytes) -> list[bytes]:
    """The pieces of a chunked body (RFC 9112, section 7.1): one a write."""
    rest = answer.partition(b"\r\n\r\n")[2]
    chunks: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return chunks
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


GRANTED = c.Granted(
    id=1,
    lease="l",
    model="m",
    worker="1",
    socket="s",
    kind="text",
    capabilities=("text",),
    context_tokens=1,
)


def test_a_plan_is_for_the_model_that_was_granted() -> None:
    generate = d.Generate(lease="", prompt="x", sampling=d.Sampling(seed=(1 << 63) - 1))
    plan = Plan(model="a", needs=(), generate=generate, choices=2)
    assert plan.for_lease(GRANTED) == msgspec.structs.replace(generate, lease="l")
    assert plan.for_lease(GRANTED, 1).sampling.seed == 0
    unseeded = msgspec.structs.replace(plan, generate=d.Generate(lease="", prompt="x"))
    assert unseeded.for_lease(GRANTED, 1).sampling.seed is None


def test_a_prompt_that_is_shared_counts_once() -> None:
    usages = [
        d.Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1),
        d.Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=5),
    ]
    total = total_usage(usages)
    assert (total.prompt_tokens, total.completion_tokens, total.cached_tokens) == (5, 5, 1)
