"""Members that are null are absent; what is free-form is nobody's to change."""

import json
from typing import Any

import pytest

from daemon.wire.errors import MlxdError
from http_bridge.anthropic_messages import read_messages
from http_bridge.anthropic_schema import MessagesRequest
from http_bridge.nulls import without_nulls
from http_bridge.openai_chat import read_chat
from http_bridge.openai_responses import read_responses
from http_bridge.openai_responses_schema import Item
from http_bridge.openai_schema import ChatRequest
from tests.http_bridge.plans import bare

HELLO = {"role": "user", "content": "Hello"}
FREE = {"a": None, "b": [None, {"c": None}]}
KNOWN = {"model": "m", "temperature": None, "unknown": None}


@pytest.mark.parametrize(
    ("value", "kind", "kept"),
    [
        ({**KNOWN, "messages": [HELLO]}, ChatRequest, {"model": "m", "messages": [HELLO]}),
        ({"model": None, "messages": None}, ChatRequest, {"model": None, "messages": None}),
        ({"messages": [{**HELLO, "z": None}]}, ChatRequest, {"messages": [HELLO]}),
        ({"messages": [{**HELLO, "role": None}]}, ChatRequest,
         {"messages": [{**HELLO, "role": None}]}),
        ({"messages": [None, 5, {"role": "z", "z": None}]}, ChatRequest,
         {"messages": [None, 5, {"role": "z", "z": None}]}),
        ({"chat_template_kwargs": FREE}, ChatRequest, {"chat_template_kwargs": FREE}),
        ({"tools": [{"type": "function", "function": {"parameters": FREE, "z": None}}]},
         ChatRequest, {"tools": [{"type": "function", "function": {"parameters": FREE}}]}),
        ({"tool_choice": {"type": "function", "z": None}}, ChatRequest,
         {"tool_choice": {"type": "function"}}),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": FREE, "z": 0}}},
         ChatRequest,
         {"response_format": {"type": "json_schema", "json_schema": {"schema": FREE, "z": 0}}}),
        ({"metadata": FREE}, ChatRequest, {"metadata": FREE}),
        ({"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "input": FREE, "caller": None, "toolset_name": None}]}]},
         MessagesRequest,
         {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": FREE}]}]}),
        ({"type": "message", "content": [{"type": "output_text", "z": None, "annotations": [FREE]}],
          "phase": None}, Item,
         {"type": "message", "content": [{"type": "output_text", "annotations": [FREE]}]}),
        ([1], ChatRequest, [1]),
        (None, ChatRequest, None),
    ],
)  # fmt: skip
def test_what_is_left_out(value: Any, kind: Any, kept: Any) -> None:
    assert without_nulls(value, kind) == kept


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_null_is_absent_in_chat() -> None:
    body = {"model": "m", "messages": [HELLO], "logit_bias": {"5": 1}}
    body["chat_template_kwargs"] = {"x": None}
    null = {**body, "functions": None, "function_call": None, "audio": None, "newer": None}
    plan, _ = read_chat(as_json(null), "r")
    assert bare(plan) == bare(read_chat(as_json(body), "r")[0])
    assert plan.generate.template_kwargs == {"x": None}
    assert plan.generate.sampling.logit_bias == {5: 1.0}


def test_null_is_absent_in_messages() -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": FREE}
    result = {"type": "tool_result", "tool_use_id": "t"}

    def body(**more: Any) -> bytes:
        turns = [HELLO, {"role": "assistant", "content": [{**use, **more}]}]
        nulls = dict.fromkeys(("is_error", "content", "cache_control") if more else ())
        turns.append({"role": "user", "content": [{**result, **nulls}]})
        return as_json({"model": "m", "max_tokens": 9, "messages": turns, **more})

    plan = read_messages(body(caller=None, toolset_name=None), "r")
    assert bare(plan) == bare(read_messages(body(), "r"))
    assert plan.generate.messages is not None
    assert json.loads(plan.generate.messages[1].tool_calls[0].arguments) == FREE


def test_null_is_absent_in_responses() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items = [HELLO, call, {"type": "function_call_output", "call_id": "c", "output": "x"}]
    nulls = {"async_": None, "caller": None, "namespace": None, "status": None, "type": None}
    more = [{**nulls, **item} for item in items]
    body = {"model": "m", "input": items}
    plan, _ = read_responses(as_json({**body, "input": more, "prompt": None}), "r")
    assert bare(plan) == bare(read_responses(as_json(body), "r")[0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"functions": []}, "functions: unknown"),
        ({"functions": None, "messages": [{"role": "user", "content": None}]},
         "messages[0].content: expected"),
        ({"functions": None, "audio": {}}, "audio: unknown"),
        ({"functions": None, "model": None}, "model: expected a string"),
        ({"functions": None, "logit_bias": {"x": 1}}, "logit_bias: "),
    ],
)  # fmt: skip
def test_the_rest_is_refused_as_ever(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(MlxdError) as caught:
        read_chat(as_json({"model": "m", "messages": [HELLO], **fields}), "r")
    assert str(caught.value).startswith(said)
