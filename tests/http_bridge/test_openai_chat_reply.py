"""Chat translation, the way back: frames to chunks that the official types accept."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from http_bridge.openai_chat_reply import ChatReply
from http_bridge.plan import Answer


def events(data: bytes) -> list[Any]:
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        assert event.startswith("data: ")
        payload = event.removeprefix("data: ")
        found.append(payload if payload == "[DONE]" else json.loads(payload))
    return found


def reply(*, include_usage: bool = False) -> ChatReply:
    return ChatReply(request_id="chatcmpl-1", created_s=1_790_000_000, include_usage=include_usage)


DONE = d.Done(
    finish_reason="stop", usage=d.Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
)
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
}


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": 'a "quoted" model',
        "choices": [choice],
    }


def test_the_golden_stream() -> None:
    told = reply()
    data = told.begin('a "quoted" model') + told.delta(d.Delta(text='x < "y"\n\u00e9\u2028'))
    data += told.delta(d.Delta(tokens=2)) + told.end(DONE)
    found = events(data)
    assert found == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": 'x < "y"\n\u00e9\u2028'}),
        chunk({}, "stop"),
        "[DONE]",
    ]
    for event in found[:-1]:
        ChatCompletionChunk.model_validate(event, strict=True)


def test_usage_comes_last_if_asked_for() -> None:
    told = reply(include_usage=True)
    found = events(told.begin("m") + told.end(DONE))
    assert [event["usage"] for event in found[:-1]] == [None, None, USAGE]
    assert found[-2]["choices"] == []
    for event in found[:-1]:
        ChatCompletionChunk.model_validate(event, strict=True)


def test_a_whole_answer_validates() -> None:
    body = reply().whole(
        "m", [Answer([d.Delta(text="a"), d.Delta(reasoning="r"), d.Delta(text="b")], DONE)]
    )
    answer = ChatCompletion.model_validate_json(body, strict=True)
    assert answer.choices[0].message.content == "ab"
    assert answer.choices[0].message.model_extra == {"reasoning_content": "r"}
    assert json.loads(body)["usage"] == USAGE


@given(st.lists(st.text(), max_size=8))
def test_streamed_text_is_whole_text(texts: list[str]) -> None:
    deltas = [d.Delta(text=text) for text in texts]
    told = reply()
    data = told.begin("m") + b"".join(told.delta(delta) for delta in deltas) + told.end(DONE)
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events(data)[:-1]]
    whole = json.loads(reply().whole("m", [Answer(deltas, DONE)]))
    assert "".join(pieces) == whole["choices"][0]["message"]["content"] == "".join(texts)


def test_a_failure_is_an_error_event() -> None:
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    (event,) = events(reply().failure(fault))
    assert event["error"]["code"] == "worker_failed"
    assert msgspec.json.decode(reply().failure(fault).removeprefix(b"data: ")) == event


def finished(tokens: int, reason: d.FinishReason = "stop") -> d.Done:
    return d.Done(finish_reason=reason, usage=d.Usage(prompt_tokens=3, completion_tokens=tokens))


def test_choices_are_told_apart_and_the_prompt_counts_once() -> None:
    told = ChatReply(request_id="c", created_s=1, include_usage=True, choices=2)
    call = d.ToolCall(id="x", name="f", arguments="{}")
    data = told.begin("m", 3)
    data += told.delta(d.Delta(text="b"), 1) + told.delta(d.Delta(tool_calls=(call,)), 0)
    data += told.delta(d.Delta(tool_calls=(call,)), 1) + told.delta(d.Delta(tool_calls=(call,)), 1)
    data += told.end(finished(4), 1)
    assert b"[DONE]" not in data
    found = events(data + told.end(finished(2, "length"), 0))
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in found[:-1]]
    shown = [c.choices[0] for c in chunks[:-1]]
    assert [choice.index for choice in shown] == [0, 1, 1, 0, 1, 1, 1, 0]
    calls = [(c.index, t.index) for c in shown for t in c.delta.tool_calls or ()]
    assert calls == [(0, 0), (1, 0), (1, 1)]
    assert [c.finish_reason for c in shown[-2:]] == ["stop", "length"]
    assert found[-2]["usage"]["prompt_tokens"] == 3
    assert found[-2]["usage"]["completion_tokens"] == 6
    assert found[-1] == "[DONE]"
    both = [Answer([d.Delta(text="a")], finished(2)), Answer([d.Delta(text="b")], finished(4))]
    whole = ChatCompletion.model_validate_json(
        ChatReply(request_id="c", created_s=1, include_usage=False, choices=2).whole("m", both),
        strict=True,
    )
    assert [(c.index, c.message.content) for c in whole.choices] == [(0, "a"), (1, "b")]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.total_tokens) == (3, 9)


def test_log_probabilities() -> None:
    euro = "\u20ac".encode()
    tokens = (
        d.TokenLogprob(token=euro[:2], logprob=-1.5),
        d.TokenLogprob(token=euro[2:], logprob=-0.5, top=(d.Candidate(token=b"a", logprob=-0.25),)),
    )
    deltas = [
        d.Delta(logprobs=tokens[:1], tokens=1),
        d.Delta(text="\u20ac", logprobs=tokens[1:], tokens=2),
    ]
    told = ChatReply(request_id="c", created_s=1, include_usage=False, logprobs=True)
    found = events(told.begin("m") + b"".join(map(told.delta, deltas)) + told.end(DONE))
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in found[:-1]]
    streamed = [
        t for c in chunks for t in (c.choices[0].logprobs and c.choices[0].logprobs.content) or ()
    ]
    whole = ChatCompletion.model_validate_json(told.whole("m", [Answer(deltas, DONE)]), strict=True)
    assert whole.choices[0].logprobs is not None
    content = whole.choices[0].logprobs.content or []
    assert [t.model_dump() for t in content] == [t.model_dump() for t in streamed]
    assert [t.bytes for t in content] == [list(euro[:2]), list(euro[2:])]
    assert (content[1].logprob, content[1].top_logprobs[0].token) == (-0.5, "a")
    plain = ChatReply(request_id="c", created_s=1, include_usage=False)
    assert json.loads(plain.whole("m", [Answer(deltas, DONE)]))["choices"][0]["logprobs"] is None
