"""Tool calls of real models, over all three protocols, by the official SDKs.

Models of this size would not call a tool by themselves, so they have to (`tool_choice`):
constrained decoding gives a call whose arguments follow the schema, whatever the weights say.
What the weights do say is the same over every protocol, because the prompt is.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from tests.e2e.service import Service
from tests.e2e.tool_models import GLIMPSE_TOOLS, SMOLLM_TOOLS

pytestmark = pytest.mark.e2e

QUESTION = "What is the weather in Tokyo and in Paris?"
CITIES = ["Tokyo", "Paris", "Oslo"]
PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = {"get_weather": PLACE, "get_time": PLACE}
MAX_TOKENS = 110
MARKUP = ("<tool_call>", "</tool_call>", "<tool_response>", '"name"')


class Turn(msgspec.Struct, frozen=True):
    """What one streamed answer came to, in common words."""

    calls: list[tuple[str, dict[str, Any]]]
    text: str
    reason: str
    prompt_tokens: int


class Sdks(msgspec.Struct, frozen=True):
    openai: openai.OpenAI
    anthropic: anthropic.Anthropic


@pytest.fixture(scope="module")
def sdks(service: Service, client: openai.OpenAI) -> Iterator[Sdks]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="unused", max_retries=0, timeout=300
    ) as other:
        yield Sdks(client, other)


@pytest.fixture(scope="module", params=[SMOLLM_TOOLS, GLIMPSE_TOOLS])
def model(service: Service, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model that knows tools, loaded for as long as this file asks it."""
    service.mlxctl("load", request.param)
    yield str(request.param)
    service.mlxctl("unload", request.param)


# --- one streamed turn over each protocol ---------------------------------------------


def chat(sdks: Sdks, model: str, named: str | None) -> Turn:
    """Chat completions; every delta of a call is put together as clients do it."""
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in TOOLS.items()
    ]
    choice: Any = {"type": "function", "function": {"name": named}} if named else "required"
    stream = sdks.openai.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        tools=tools,
        tool_choice=choice,
        temperature=0,
        max_tokens=MAX_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    calls: dict[int, dict[str, str]] = {}
    text, reasons, ids, usage = "", [], set(), None
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for choice_ in chunk.choices:
            text += choice_.delta.content or ""
            reasons += [choice_.finish_reason] if choice_.finish_reason else []
            for part in choice_.delta.tool_calls or ():
                assert part.function is not None
                call = calls.setdefault(part.index, {"name": "", "arguments": ""})
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
                ids |= {part.id} if part.id else set()
    assert sorted(calls) == list(range(len(calls)))
    assert len(ids) == len(calls)
    (reason,) = reasons
    assert usage is not None
    found = [(call["name"], json.loads(call["arguments"])) for call in calls.values()]
    return Turn(found, text, reason, usage.prompt_tokens)


def responses(sdks: Sdks, model: str, named: str | None) -> Turn:
    """Responses; the events of each item are in their documented order."""
    tools: Any = [
        {"type": "function", "name": name, "parameters": schema} for name, schema in TOOLS.items()
    ]
    choice: Any = {"type": "function", "name": named} if named else "required"
    stream = sdks.openai.responses.create(
        model=model,
        input=QUESTION,
        tools=tools,
        tool_choice=choice,
        temperature=0,
        max_output_tokens=MAX_TOKENS,
        stream=True,
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    assert types[:2] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type == "response.completed"
    items = [item for item in last.response.output if item.type == "function_call"]
    one = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert [t for t in types[2:-1] if t in one] == one * len(items)
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert deltas == [item.arguments for item in items]
    assert len({item.call_id for item in items}) == len(items)
    found = [(item.name, json.loads(item.arguments)) for item in items]
    assert last.response.usage is not None
    return Turn(found, last.response.output_text, "tool_calls", last.response.usage.input_tokens)


def messages(sdks: Sdks, model: str, named: str | None) -> Turn:
    """Messages; a tool_use block opens empty, gets its JSON in deltas, and closes."""
    choice: Any = {"type": "tool", "name": named} if named else {"type": "any"}
    tools: Any = [{"name": name, "input_schema": schema} for name, schema in TOOLS.items()]
    with sdks.anthropic.messages.stream(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        tools=tools,
        tool_choice=choice,
        max_tokens=MAX_TOKENS,
        extra_body={"temperature": 0},
    ) as stream:
        partial: dict[int, str] = {}
        for event in stream:
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                partial[event.index] = ""
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                partial[event.index] += event.delta.partial_json
        final = stream.get_final_message()
    uses = [block for block in final.content if block.type == "tool_use"]
    assert [json.loads(text) for text in partial.values()] == [use.input for use in uses]
    assert len({use.id for use in uses}) == len(uses)
    text = "".join(block.text for block in final.content if block.type == "text")
    reason = {"tool_use": "tool_calls"}.get(str(final.stop_reason), str(final.stop_reason))
    prompt_tokens = final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0)
    return Turn([(use.name, dict(use.input)) for use in uses], text, reason, prompt_tokens)


PROTOCOLS: dict[str, Callable[[Sdks, str, str | None], Turn]] = {
    "chat": chat,
    "responses": responses,
    "messages": messages,
}


def check(turn: Turn) -> None:
    """Whole calls of offered tools, whose arguments follow the schema, and no markup."""
    assert turn.calls
    assert (turn.text, turn.reason) == ("", "tool_calls")
    for name, arguments in turn.calls:
        assert name in TOOLS
        assert set(arguments) == {"city"}
        assert arguments["city"] in CITIES


def test_a_call_is_the_same_over_every_protocol(sdks: Sdks, model: str) -> None:
    turns = {name: ask(sdks, model, None) for name, ask in PROTOCOLS.items()}
    for turn in turns.values():
        check(turn)
    assert turns["chat"] == turns["responses"] == turns["messages"]
    if model == SMOLLM_TOOLS:
        assert len(turns["chat"].calls) >= 2, "parallel calls, in one answer"


@pytest.mark.parametrize("model", [GLIMPSE_TOOLS], indirect=True)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("named", TOOLS)
def test_the_tool_that_is_named_is_the_one_called(
    sdks: Sdks, model: str, protocol: str, named: str
) -> None:
    turn = PROTOCOLS[protocol](sdks, model, named)
    check(turn)
    assert {name for name, _ in turn.calls} == {named}


# --- the result comes back, and the answer is text -------------------------------------

CALLED = ("call_1", "get_weather", '{"city": "Tokyo"}', "sunny, 21 degrees")


def chat_answer(sdks: Sdks, model: str) -> tuple[str, str]:
    call_id, name, arguments, result = CALLED
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    talk: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]
    asked: dict[str, Any] = {"model": model, "messages": talk, "temperature": 0, "max_tokens": 12}
    chunks = list(sdks.openai.chat.completions.create(**asked, stream=True))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    whole = sdks.openai.chat.completions.create(**asked).choices[0]
    assert "".join(pieces) == whole.message.content
    assert len(pieces) > 1, "streamed"
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    return "".join(pieces), {"stop": "end", "length": "cut"}[whole.finish_reason]


def responses_answer(sdks: Sdks, model: str) -> tuple[str, str]:
    call_id, name, arguments, result = CALLED
    talk: Any = [
        {"role": "user", "content": QUESTION},
        {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": result},
    ]
    asked: dict[str, Any] = {"model": model, "input": talk, "temperature": 0}
    events = list(sdks.openai.responses.create(**asked, max_output_tokens=12, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    whole = last.response
    assert "".join(pieces) == whole.output_text
    assert len(pieces) > 1, "streamed"
    return "".join(pieces), {"completed": "end", "incomplete": "cut"}[str(whole.status)]


def messages_answer(sdks: Sdks, model: str) -> tuple[str, str]:
    call_id, name, arguments, result = CALLED
    use = {"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)}
    talk: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": [use]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call_id, "content": result}],
        },
    ]
    with sdks.anthropic.messages.stream(
        model=model, messages=talk, max_tokens=12, extra_body={"temperature": 0}
    ) as stream:
        pieces = list(stream.text_stream)
        whole = stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert "".join(pieces) == block.text
    assert len(pieces) > 1, "streamed"
    return block.text, {"end_turn": "end", "max_tokens": "cut"}[str(whole.stop_reason)]


def test_the_answer_to_a_result_is_the_same_over_every_protocol(sdks: Sdks, model: str) -> None:
    answers = [ask(sdks, model) for ask in (chat_answer, responses_answer, messages_answer)]
    assert answers[0][0].strip()
    assert not any(markup in answers[0][0] for markup in MARKUP)
    assert answers[1:] == answers[:1] * 2
