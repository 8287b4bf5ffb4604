"""Plain completions: prompts taken as they are, and everything that cannot be honoured."""

import json
from typing import Any

import pytest
from openai.types import Completion

from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from http_bridge.naming import capabilities_of
from http_bridge.openai_completions import CompletionReply, read_completion
from http_bridge.plan import Answer, Plan

DONE = d.Done(finish_reason="tool_calls", usage=d.Usage(prompt_tokens=3, completion_tokens=2))


def read(**fields: Any) -> Plan:
    return read_completion(json.dumps({"model": "m", **fields}).encode(), "cmpl-1")[0]


@pytest.mark.parametrize(
    ("prompt", "taken"),
    [("Hi", "Hi"), ("", ""), (["Hi"], "Hi"), ([1, 2], (1, 2))],
)
def test_prompts(prompt: Any, taken: Any) -> None:
    plan = read(prompt=prompt)
    assert plan.generate.prompt == taken
    assert plan.generate.messages is None
    assert capabilities_of(plan.needs) == ("text",)


def test_max_tokens_is_16_as_openai_documents() -> None:
    assert read(prompt="x").generate.max_tokens == 16
    assert read(prompt="x", max_tokens=3).generate.max_tokens == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [[1], [2]]}, "prompt[0]"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "n": 2, "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "messages": []}, "messages"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.fault.field == param


def test_replies_validate() -> None:
    told = CompletionReply(request_id="cmpl-1", created_s=1, include_usage=True)
    data = told.begin("m") + told.delta(d.Delta(text='a"b')) + told.end(DONE)
    events = data.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [choice["text"] for chunk in chunks for choice in chunk["choices"]] == ['a"b', ""]
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[2]["usage"]["total_tokens"] == 5
    whole = Completion.model_validate_json(
        told.whole("m", [Answer([d.Delta(text="a")], DONE)]), strict=True
    )
    assert whole.choices[0].text == "a"


def test_choices_and_log_probabilities() -> None:
    plan = read(prompt="x", n=2, best_of=2, logprobs=1)
    assert (plan.choices, plan.generate.logprobs) == (2, 1)
    first = d.TokenLogprob(token=b"ab", logprob=-1.0, top=(d.Candidate(token=b"ab", logprob=-1.0),))
    second = d.TokenLogprob(token=b"c", logprob=-2.0)
    deltas = [d.Delta(text="ab", logprobs=(first,)), d.Delta(text="c", logprobs=(second,))]
    told = CompletionReply(
        request_id="c", created_s=1, include_usage=False, choices=2, logprobs=True
    )
    data = told.begin("m") + told.delta(deltas[0], 1) + told.delta(deltas[1], 1)
    assert b"[DONE]" not in data + told.end(DONE, 1)
    assert told.end(DONE, 0).endswith(b"data: [DONE]\n\n")
    chunks = [
        json.loads(event.removeprefix("data: ")) for event in data.decode().split("\n\n")[:-1]
    ]
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0], [2]]
    whole = Completion.model_validate_json(
        told.whole("m", [Answer(deltas, DONE), Answer(deltas, DONE)]), strict=True
    )
    assert whole.choices[1].logprobs is not None
    assert whole.choices[1].logprobs.model_dump() == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"ab": -1.0}, {}],
        "text_offset": [0, 2],
    }
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 4)
