"""Messages, responses and several choices over real HTTP, asked for by the official clients."""

from typing import Any

import anthropic
import anyio
import openai
import pytest
from anthropic.types import MessageParam, ToolParam
from openai.types.chat import ChatCompletionMessageParam

from daemon.wire import data as d
from daemon.wire import forms
from daemon.wire.errors import Code, Fault
from tests.fakes.daemon import FakeModel, Line, Report, Script, answers, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

HELLO: ChatCompletionMessageParam = {"role": "user", "content": "Hello"}
TURN: MessageParam = {"role": "user", "content": "Hello"}
TOOL: ToolParam = {"name": "get", "input_schema": {"type": "object"}}


def speaks(*frames: d.DataAnswer) -> Script:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=5), *frames)

    return script


def done(tokens: int = 2, reason: d.FinishReason = "stop") -> d.Done:
    usage = d.Usage(prompt_tokens=5, completion_tokens=tokens)
    return d.Done(finish_reason=reason, usage=usage)


RICH = speaks(
    d.Delta(reasoning="hm", tokens=1),
    d.Delta(text="Let me", tokens=2),
    d.Delta(text=" see.", tokens=3),
    d.Delta(tool_calls=(d.ToolCall(id="t1", name="get", arguments='{"n":1}'),), tokens=4),
    done(4, "tool_calls"),
)


# --- Anthropic ------------------------------------------------------------------------


async def test_messages(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("org/m", says("Par", "is."))) as setup:
        message = await setup.anthropic.messages.create(
            model="org/m",
            max_tokens=9,
            messages=[TURN],
            system="Be brief.",
            extra_body={"temperature": 0},
        )
        await setup.fake.ledger.wait_for("release lease-1")
    assert message.id.startswith("msg_")
    assert [block.model_dump() for block in message.content] == [
        {"type": "text", "text": "Paris.", "citations": None}
    ]
    assert (message.model, message.stop_reason) == ("org/m", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 2)
    request = setup.fake.requests[0]
    assert (request.max_tokens, request.request) == (9, message.id)
    assert request.sampling == d.Sampling(temperature=0.0)


async def test_messages_are_streamed_with_every_event(open_setup: OpenSetup) -> None:
    async with (
        open_setup(FakeModel("m", RICH)) as setup,
        setup.anthropic.messages.stream(
            model="m", max_tokens=9, messages=[TURN], tools=[TOOL]
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert list(dict.fromkeys(kinds)) == [
        "message_start", "content_block_start", "content_block_delta", "thinking",
        "content_block_stop", "text", "input_json", "message_delta", "message_stop",
    ]  # fmt: skip
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    tool_use = message.content[2]
    assert tool_use.type == "tool_use"
    assert (tool_use.id, tool_use.name, tool_use.input) == ("t1", "get", {"n": 1})
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 4)


async def test_what_was_said_can_be_sent_back(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", RICH)) as setup:
        said = await setup.anthropic.messages.create(
            model="m", max_tokens=9, messages=[TURN], tools=[TOOL]
        )
        content = [block.model_dump() for block in said.content]
        result: Any = {"type": "tool_result", "tool_use_id": "t1", "content": "1"}
        history: list[Any] = [
            TURN,
            {"role": "assistant", "content": content},
            {"role": "user", "content": [result]},
        ]
        await setup.anthropic.messages.create(
            model="m", max_tokens=9, messages=history, tools=[TOOL]
        )
    messages = setup.fake.requests[1].messages
    assert messages is not None
    assert messages[1:] == (
        d.ChatMessage(
            role="assistant",
            parts=(d.TextPart(text="Let me see."),),
            reasoning="hm",
            tool_calls=(d.ToolCall(id="t1", name="get", arguments='{"n":1}'),),
        ),
        d.ChatMessage(role="tool", tool_call_id="t1", parts=(d.TextPart(text="1"),)),
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (Code.INCOMPATIBLE, 422, "invalid_request_error"),
        (Code.QUEUE_FULL, 429, "rate_limit_error"),
        (Code.BUSY, 503, "overloaded_error"),
        (Code.WORKER_FAILED, 502, "api_error"),
        (Code.INTERNAL, 500, "api_error"),
    ],
)
async def test_failures_are_said_in_anthropics_words(
    open_setup: OpenSetup, code: Code, status: int, kind: str
) -> None:
    fault = Fault(code=code, message="no", retry_after_ms=4200)
    async with open_setup(FakeModel("m", says(), fault=fault)) as setup:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await setup.anthropic.messages.create(model="m", max_tokens=9, messages=[TURN])
    assert caught.value.status_code == status
    assert caught.value.body == {"type": "error", "error": {"type": kind, "message": "no"}}
    assert caught.value.response.headers["Retry-After"] == "5"


async def test_what_http_refuses_is_said_in_anthropics_words(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        with pytest.raises(anthropic.NotFoundError):
            await setup.anthropic.messages.create(model="x", max_tokens=9, messages=[TURN])
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: "):
            await setup.anthropic.messages.create(model="m", max_tokens=0, messages=[TURN])
        wrong = await setup.http.get("/v1/messages")
        form = await setup.http.post("/v1/messages", content=b"{}")
    assert wrong.status_code == 405
    assert wrong.json()["type"] == "error"
    assert (form.status_code, form.json()["error"]["type"]) == (415, "invalid_request_error")


async def test_a_failure_in_a_stream_is_an_error_event(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.LAGGED, message="too slow")
    model = FakeModel("m", speaks(d.Delta(text="a", tokens=1), d.Fail(fault=fault)))

    async def listen(client: anthropic.AsyncAnthropic) -> None:
        async with client.messages.stream(model="m", max_tokens=9, messages=[TURN]) as stream:
            async for _ in stream:
                pass

    async with open_setup(model) as setup:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await listen(setup.anthropic)
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "api_error", "message": "too slow"},
    }


async def test_a_load_is_waited_for_with_pings(open_setup: OpenSetup) -> None:
    go = anyio.Event()

    async def load(_report: Report) -> None:
        await go.wait()

    model = FakeModel("m", says("ok"), load=load)
    lines: list[str] = []
    async with open_setup(model, begin_after_s=0.01, keep_alive_s=0.01) as setup:
        body = {"model": "m", "max_tokens": 9, "messages": [TURN], "stream": True}
        async with setup.http.stream("POST", "/v1/messages", json=body) as response:
            async for line in response.aiter_lines():
                lines.append(line)
                if line == 'data: {"type":"ping"}':
                    go.set()
    assert lines[:4] == [": waiting", "", "event: ping", 'data: {"type":"ping"}']
    assert lines[-2:] == ['data: {"type":"message_stop"}', ""]


async def test_count_tokens(open_setup: OpenSetup) -> None:
    model = FakeModel("m", says(), calls=answers(d.TokenCount(prompt_tokens=17)))
    async with open_setup(model) as setup:
        count = await setup.anthropic.messages.count_tokens(
            model="m", messages=[TURN], system="Be brief.", tools=[TOOL]
        )
        await setup.fake.ledger.wait_for("release lease-1")
    assert count.input_tokens == 17
    call = setup.fake.calls[0]
    assert isinstance(call, d.CountTokens)
    assert [message.role for message in call.messages] == ["system", "user"]


# --- several choices --------------------------------------------------------------------


async def by_seed(line: Line, request: d.Generate) -> None:
    """Says its own seed, one token; the second choice takes three."""
    seed = str(request.sampling.seed)
    texts = [seed] if request.sampling.seed == 7 else [seed, ".", "."]
    await says(*texts)(line, request)


async def test_several_choices_under_one_lease(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", by_seed)) as setup:
        whole = await setup.sdk.chat.completions.create(
            model="m", messages=[HELLO], n=3, seed=7, logprobs=False
        )
        stream = await setup.sdk.chat.completions.create(
            model="m",
            messages=[HELLO],
            n=3,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts = ["", "", ""]
        ends: list[int] = []
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends.append(choice.index)
        plain = await setup.sdk.completions.create(model="m", prompt="x", n=2, seed=7)
        await setup.fake.ledger.wait_for("release lease-3")
    assert [choice.message.content for choice in whole.choices] == ["7", "8..", "9.."]
    assert texts == ["7", "8..", "9.."]
    assert sorted(ends) == [0, 1, 2]
    for usage in (whole.usage, chunk.usage):
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (5, 7)
    assert [choice.text for choice in plain.choices] == ["7", "8.."]
    assert setup.fake.ledger.entries.count("acquire m") == 3
    assert [request.lease for request in setup.fake.requests[:3]] == ["lease-1"] * 3


@pytest.mark.parametrize("stream", [False, True])
async def test_one_failing_choice_fails_them_all(open_setup: OpenSetup, stream: bool) -> None:
    async def one_fails(line: Line, request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1))
        if request.sampling.seed == 1:
            await line.send(d.Fail(fault=Fault(code=Code.WORKER_FAILED, message="gone")))
        await line.until_closed()

    async def ask(client: openai.AsyncOpenAI) -> None:
        answer: Any = await client.chat.completions.create(
            model="m", messages=[HELLO], n=2, seed=0, stream=stream
        )
        async for _ in answer:
            pass

    async with open_setup(FakeModel("m", one_fails)) as setup:
        with pytest.raises(openai.APIError, match="gone"):
            await ask(setup.sdk)
        await setup.fake.ledger.wait_for("worker closed lease-1", times=2)
        await setup.fake.ledger.wait_for("release lease-1")


# --- what depends on the model ------------------------------------------------------------


async def test_formats_go_only_to_models_that_follow_them(open_setup: OpenSetup) -> None:
    able = FakeModel("able", says("{}"), capabilities=("text", "chat", "structured"))
    async with open_setup(FakeModel("m", says("{}")), able) as setup:
        with pytest.raises(openai.BadRequestError, match="m cannot do structured") as caught:
            await setup.sdk.chat.completions.create(
                model="m", messages=[HELLO], response_format={"type": "json_object"}
            )
        await setup.sdk.chat.completions.create(
            model="able", messages=[HELLO], response_format={"type": "json_object"}
        )
        await setup.fake.ledger.wait_for("release lease-1")
    assert caught.value.param == "response_format"
    assert [request.constraint for request in setup.fake.requests] == [forms.AnyJson()]


async def test_a_workers_refusal_of_logprobs_is_a_400(open_setup: OpenSetup) -> None:
    async def refuses(line: Line, _request: d.Generate) -> None:
        fault = Fault(code=Code.INVALID_REQUEST, message="not here", field="logprobs")
        await line.send(d.Fail(fault=fault))

    able = FakeModel("m", refuses, capabilities=("text", "chat", "logprobs"))
    async with open_setup(able) as setup:
        with pytest.raises(openai.BadRequestError) as caught:
            await setup.sdk.chat.completions.create(model="m", messages=[HELLO], logprobs=True)
    assert caught.value.param == "logprobs"
    assert setup.fake.requests[0].logprobs == 0


async def test_what_was_said_in_chat_can_be_sent_back(open_setup: OpenSetup) -> None:
    tools: Any = [{"type": "function", "function": {"name": "get", "parameters": {}}}]
    async with open_setup(FakeModel("m", RICH)) as setup:
        said = await setup.sdk.chat.completions.create(model="m", messages=[HELLO], tools=tools)
        history: list[Any] = [HELLO, said.choices[0].message.model_dump()]
        history.append({"role": "tool", "tool_call_id": "t1", "content": "1", "name": None})
        await setup.sdk.chat.completions.create(
            model="m",
            messages=history,
            tools=tools,
            extra_body={"functions": None, "function_call": None, "audio": None},
        )
    assert any(value is None for value in history[1].values())
    messages = setup.fake.requests[1].messages
    assert messages is not None
    assert (messages[1].reasoning, messages[1].tool_calls[0].id) == ("hm", "t1")


# --- responses ------------------------------------------------------------------------------


async def test_responses(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("org/m", says("Par", "is."))) as setup:
        response = await setup.sdk.responses.create(
            model="org/m", input="Capital?", instructions="Be brief.", max_output_tokens=9
        )
        with pytest.raises(openai.BadRequestError, match="whole conversation") as caught:
            await setup.sdk.responses.create(
                model="org/m", input="x", previous_response_id=response.id
            )
    assert response.output_text == "Paris."
    assert (response.model, response.status) == ("org/m", "completed")
    assert response.id == setup.fake.requests[0].request
    assert caught.value.param == "previous_response_id"


async def test_responses_are_streamed_and_can_be_sent_back(open_setup: OpenSetup) -> None:
    tools: Any = [{"type": "function", "name": "get", "parameters": {}, "strict": False}]
    async with open_setup(FakeModel("m", RICH)) as setup:
        async with setup.sdk.responses.stream(model="m", input="Hi", tools=tools) as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()
        history: list[Any] = [{"role": "user", "content": "Hi"}]
        history += [item.model_dump() for item in response.output]
        for item in history:
            item.pop("parsed_arguments", None)
            for part in item["content"] if isinstance(item.get("content"), list) else ():
                part.pop("parsed", None)
        history.append({"type": "function_call_output", "call_id": "t1", "output": "1"})
        await setup.sdk.responses.create(model="m", input=history, tools=tools)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 2
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    messages = setup.fake.requests[1].messages
    assert messages is not None
    assert messages[1:] == (
        d.ChatMessage(
            role="assistant",
            parts=(d.TextPart(text="Let me see."),),
            reasoning="hm",
            tool_calls=(d.ToolCall(id="t1", name="get", arguments='{"n":1}'),),
        ),
        d.ChatMessage(role="tool", tool_call_id="t1", parts=(d.TextPart(text="1"),)),
    )


async def test_a_failed_response_says_so_last(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    model = FakeModel("m", speaks(d.Delta(text="a", tokens=1), d.Fail(fault=fault)))
    async with open_setup(model) as setup:
        stream = await setup.sdk.responses.create(model="m", input="Hi", stream=True)
        found = [event async for event in stream]
    assert found[-1].type == "response.failed"
    assert found[-1].response.error is not None
    assert found[-1].response.error.message == "gone (worker_failed)"


async def test_leaving_ends_every_choice(open_setup: OpenSetup) -> None:
    async def hangs(line: Line, request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1))
        await line.until_closed()

    async with open_setup(FakeModel("m", hangs)) as setup:
        stream = await setup.sdk.chat.completions.create(
            model="m", messages=[HELLO], n=3, stream=True
        )
        await anext(stream)
        await stream.close()
        await setup.fake.ledger.wait_for("worker closed lease-1", times=3)
        await setup.fake.ledger.wait_for("release lease-1")


async def test_a_bridge_that_stops_ends_counting_with_an_error(open_setup: OpenSetup) -> None:
    async def hangs(line: Line, _request: d.WorkRequest) -> None:
        await line.until_closed()

    caught: list[anthropic.APIStatusError] = []
    model = FakeModel("m", says(), calls=hangs)
    async with anyio.create_task_group() as tasks, open_setup(model) as setup:
        client = anthropic.AsyncAnthropic(base_url=setup.url, api_key="x", max_retries=0)

        async def ask() -> None:
            try:
                await client.messages.count_tokens(model="m", messages=[TURN])
            except anthropic.APIStatusError as error:
                caught.append(error)

        tasks.start_soon(ask)
        await setup.fake.ledger.wait_for("accept lease-1")
    await client.close()
    assert [error.status_code for error in caught] == [503]
