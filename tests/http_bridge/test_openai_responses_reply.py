"""Responses and their events, as the official types and the streaming client accept them."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from http_bridge.openai_responses import read_responses
from http_bridge.openai_responses_reply import ResponsesReply
from http_bridge.plan import Answer

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = d.Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=2)
DELTAS = [
    d.Delta(reasoning="h", tokens=1),
    d.Delta(reasoning="m", text="Lo", tokens=2),
    d.Delta(text="data: ok", tokens=3),
    d.Delta(tool_calls=(d.ToolCall(id="c1", name="f", arguments='{"b":1}'),), tokens=5),
]
ITEM = ["response.output_item.added", "response.content_part.added"]


def reply(**fields: Any) -> ResponsesReply:
    body = json.dumps({"model": "alias", "input": "Hi", **fields}).encode()
    _, request = read_responses(body, "resp_1")
    return ResponsesReply(request_id="1", created_s=1_790_000_000, request=request)


def done(reason: d.FinishReason = "stop") -> d.Done:
    return d.Done(finish_reason=reason, usage=USAGE)


def events(data: bytes) -> list[Any]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, payload = block.partition("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def streamed(deltas: list[d.Delta], ended: d.Done) -> list[Any]:
    told = reply()
    return events(told.begin("m", 7) + b"".join(map(told.delta, deltas)) + told.end(ended))


def test_the_golden_stream() -> None:
    found = streamed(DELTAS, done("tool_calls"))
    assert [event["type"] for event in found] == [
        "response.created",
        "response.in_progress",
        *ITEM,
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        *ITEM,
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    placed = [event["output_index"] for event in found if "output_index" in event]
    assert placed == [0] * 7 + [1] * 7 + [2] * 4
    last = Response.model_validate(found[-1]["response"])
    assert [item.type for item in last.output] == ["reasoning", "message", "function_call"]
    assert last.output_text == "Lodata: ok"
    assert (last.model, last.status, last.error) == ("m", "completed", None)
    assert last.usage is not None
    assert last.usage.model_dump(exclude_none=True) == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }


def test_items_are_whole_when_they_are_done_and_keep_their_ids() -> None:
    found = streamed(DELTAS, done())
    added = [e["item"]["id"] for e in found if e["type"] == "response.output_item.added"]
    ended = [e["item"] for e in found if e["type"] == "response.output_item.done"]
    assert [item["id"] for item in ended] == added == ["rs_1_0", "msg_1_1", "fc_1_2"]
    assert ended == found[-1]["response"]["output"]
    assert ended[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert ended[2]["arguments"] == '{"b":1}'


def test_a_whole_response_is_the_streams_last() -> None:
    whole = json.loads(reply().whole("m", [Answer(DELTAS, done())]))
    assert whole == streamed(DELTAS, done())[-1]["response"]
    Response.model_validate(whole)


def test_a_response_repeats_what_was_asked() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    told = reply(
        instructions="Be brief.",
        temperature=0.5,
        max_output_tokens=9,
        tools=[tool],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        metadata={"a": "b"},
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    )
    response = Response.model_validate_json(told.whole("m", [Answer([], done("length"))]))
    assert response.id == "resp_1"
    assert response.created_at == 1_790_000_000
    assert (response.instructions, response.temperature) == ("Be brief.", 0.5)
    assert (response.max_output_tokens, response.parallel_tool_calls) == (9, False)
    assert response.tools[0].type == "function"
    assert response.tools[0].strict is True
    assert response.metadata == {"a": "b"}
    assert response.reasoning is not None
    assert response.reasoning.effort == "low"
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"
    assert response.store is False  # type: ignore[attr-defined]
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_a_cut_answer_is_incomplete() -> None:
    found = streamed([d.Delta(text="a", tokens=1)], done("length"))
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"


def test_log_probabilities() -> None:
    token = d.TokenLogprob(token=b"a", logprob=-0.5, top=(d.Candidate(token=b"b", logprob=-0.75),))
    found = streamed([d.Delta(text="a", tokens=1, logprobs=(token,))], done())
    (delta,) = [event for event in found if event["type"] == "response.output_text.delta"]
    assert delta["logprobs"][0]["top_logprobs"][0]["token"] == "b"
    response = Response.model_validate(found[-1]["response"])
    assert response.output[0].type == "message"
    part = response.output[0].content[0]
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert (part.logprobs[0].token, part.logprobs[0].logprob) == ("a", -0.5)


def test_failures() -> None:
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    told = reply()
    found = events(told.begin("m") + told.delta(d.Delta(text="a", tokens=1)) + told.failure(fault))
    assert found[-1]["type"] == "response.failed"
    assert found[-2]["item"]["status"] == "incomplete"
    assert found[-1]["response"]["status"] == "failed"
    assert found[-1]["response"]["error"] == {
        "code": "server_error",
        "message": "gone (worker_failed)",
    }
    (early,) = events(reply().failure(Fault(code=Code.BUSY, message="later")))
    assert (early["type"], early["code"], early["message"]) == ("error", "busy", "later")


@given(st.lists(st.builds(d.Delta, text=st.text(), reasoning=st.text()), max_size=8))
def test_streamed_text_is_whole_text(deltas: list[d.Delta]) -> None:
    found = streamed(deltas, done())
    pieces = [e["delta"] for e in found if e["type"] == "response.output_text.delta"]
    response = Response.model_validate(found[-1]["response"])
    assert "".join(pieces) == response.output_text == "".join(delta.text for delta in deltas)
