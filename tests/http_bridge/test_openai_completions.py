"""Plain completions: prompts taken as they are, and everything that cannot be honoured."""

import json
from typing import Any

import pytest
from openai.types import Completion

from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from http_bridge.openai_completions import CompletionReply, read_completion
from http_bridge.plan import Plan

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
    assert plan.needs == ("text",)


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
        ({"prompt": "x", "logprobs": 0}, "logprobs"),
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
    whole = Completion.model_validate_json(told.whole("m", [d.Delta(text="a")], DONE), strict=True)
    assert whole.choices[0].text == "a"
