"""Anthropic's events and messages, as the official types accept them."""

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from http_bridge.anthropic_reply import MessagesReply
from http_bridge.plan import Answer

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USAGE = d.Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2)
CALLS = (
    d.ToolCall(id="t1", name="f", arguments='{"b": 1, "a": 100000000000000000000}'),
    d.ToolCall(id="t2", name="g", arguments="not json"),
)
DELTAS = [
    d.Delta(reasoning="h", tokens=1),
    d.Delta(reasoning="m", text="Lo", tokens=2),
    d.Delta(text="ok", tokens=3),
    d.Delta(tool_calls=CALLS, tokens=4),
    d.Delta(text=".", tokens=5),
]


def done(reason: d.FinishReason = "stop", stop_text: str | None = None) -> d.Done:
    return d.Done(finish_reason=reason, usage=USAGE, stop_text=stop_text)


def streamed(deltas: list[d.Delta], ended: d.Done) -> list[Any]:
    told = MessagesReply(request_id="msg_1")
    data = told.begin("m", 7) + b"".join(map(told.delta, deltas)) + told.end(ended)
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, payload = block.partition("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    return found


def test_the_golden_stream() -> None:
    found = streamed(DELTAS, done("tool_calls"))
    assert [(event["type"], event.get("index")) for event in found] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("content_block_start", 3),
        ("content_block_delta", 3),
        ("content_block_stop", 3),
        ("content_block_start", 4),
        ("content_block_delta", 4),
        ("content_block_stop", 4),
        ("message_delta", None),
        ("message_stop", None),
    ]
    starts = [event["content_block"]["type"] for event in found if "content_block" in event]
    assert starts == ["thinking", "text", "tool_use", "tool_use", "text"]
    assert found[0]["message"]["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    partial = [e["delta"]["partial_json"] for e in found if "partial_json" in e.get("delta", {})]
    assert partial == [CALLS[0].arguments, '{"_not_an_object":"not json"}']
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 4,
    }


def test_a_whole_message_validates() -> None:
    body = MessagesReply(request_id="msg_1").whole("m", [Answer(DELTAS, done("tool_calls"))])
    message = Message.model_validate_json(body)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert json.loads(body)["content"][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Look."},
    ]
    assert json.loads(body)["content"][2]["input"] == {"b": 1, "a": 10**20}
    assert (message.id, message.role, message.model) == ("msg_1", "assistant", "m")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 4)


@pytest.mark.parametrize(
    ("ended", "reason", "sequence"),
    [
        (done("stop"), "end_turn", None),
        (done("length"), "max_tokens", None),
        (done("tool_calls"), "tool_use", None),
        (done("stop", "END"), "stop_sequence", "END"),
    ],
)
def test_reasons(ended: d.Done, reason: str, sequence: str | None) -> None:
    body = json.loads(MessagesReply(request_id="msg_1").whole("m", [Answer([], ended)]))
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)
    assert body["content"] == []
    assert streamed([], ended)[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


@given(st.lists(st.builds(d.Delta, text=st.text(), reasoning=st.text()), max_size=8))
def test_streamed_is_whole(deltas: list[d.Delta]) -> None:
    found = streamed(deltas, done())
    added = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    whole = json.loads(MessagesReply(request_id="msg_1").whole("m", [Answer(deltas, done())]))
    for kind in ("text", "thinking"):
        blocks = [block[kind] for block in whole["content"] if block["type"] == kind]
        assert "".join(delta.get(kind, "") for delta in added) == "".join(blocks)
    opened = [event["index"] for event in found if event["type"] == "content_block_start"]
    closed = [event["index"] for event in found if event["type"] == "content_block_stop"]
    assert opened == closed == list(range(len(opened)))


def test_failures_and_pings() -> None:
    told = MessagesReply(request_id="msg_1")
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    name, data, *_ = told.failure(fault).decode().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "gone"},
    }
    assert told.waiting("loading 42 %") == (
        b': loading 42 %\n\nevent: ping\ndata: {"type":"ping"}\n\n'
    )
