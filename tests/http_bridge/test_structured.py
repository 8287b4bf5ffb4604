"""What tools and schemas come to on the wire."""

import json
from typing import Any

import pytest

from daemon.wire import forms
from daemon.wire.errors import MlxdError
from http_bridge.anthropic_messages import read_messages
from http_bridge.naming import Need
from http_bridge.openai_chat import read_chat
from http_bridge.openai_responses import read_responses
from http_bridge.structured import Choice, Tools, choose_tools, schema_constraint

F: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
G: dict[str, Any] = {"type": "function", "function": {"name": "g"}}


def needs(*fields: str) -> tuple[Need, ...]:
    return tuple(Need(capability="structured", field=field) for field in fields)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (Choice(), Tools(shown=(F, G))),
        (Choice(mode="none"), Tools()),
        (Choice(mode="none", single="p"), Tools()),
        (
            Choice(mode="required"),
            Tools(shown=(F, G), call_one_of=("f", "g"), needs=needs("tool_choice")),
        ),
        (
            Choice(mode="named", name="g", field="x"),
            Tools(shown=(F, G), call_one_of=("g",), needs=needs("x")),
        ),
        (
            Choice(single="p"),
            Tools(shown=(F, G), calls_max=1, needs=needs("p")),
        ),
    ],
)
def test_choices(choice: Choice, tools: Tools) -> None:
    assert choose_tools((F, G), {}, choice) == tools


def as_body(request: dict[str, Any], tool: dict[str, Any]) -> bytes:
    return json.dumps({**request, "tools": [tool]}).encode()


def test_one_tool_gives_one_prompt_over_every_protocol() -> None:
    """``strict`` is the worker's affair: no protocol shows it to the model."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    said = {"description": "d", "name": "f", "strict": True}
    openai = {"parameters": schema, **said}
    asked: dict[str, Any] = {"model": "m"}
    talk: dict[str, Any] = {**asked, "messages": [{"role": "user", "content": "hello"}]}
    function = {"type": "function", "function": openai}
    flat = {"type": "function", **openai}
    anthropic = {"input_schema": schema, **said}
    chat = read_chat(as_body(talk, function), "r")[0].generate.tools
    responses = read_responses(as_body({**asked, "input": "hello"}, flat), "r")[0].generate.tools
    messages = read_messages(as_body({**talk, "max_tokens": 9}, anthropic), "r").generate.tools
    shown = {"name": "f", "description": "d", "parameters": schema}
    assert json.dumps(chat) == json.dumps([{"type": "function", "function": shown}])
    assert json.dumps(chat) == json.dumps(responses) == json.dumps(messages)


def test_strict_tools_are_required_to_be() -> None:
    tools = choose_tools((F, G), {"g": "tools[1].strict"}, Choice())
    assert (tools.strict, tools.needs) == (("g",), needs("tools[1].strict"))
    assert choose_tools((F, G), {"g": "tools[1].strict"}, Choice(mode="none")) == Tools()


@pytest.mark.parametrize(
    ("shown", "choice", "field"),
    [
        ((F, F), Choice(), "tools[1]"),
        ((F, F), Choice(mode="none"), "tools[1]"),
        ((), Choice(mode="required"), "tool_choice"),
        ((F,), Choice(mode="named", name="g"), "tool_choice"),
        ((), Choice(mode="named", name="g"), "tool_choice"),
    ],
)
def test_choices_that_cannot_be(
    shown: tuple[dict[str, Any], ...], choice: Choice, field: str
) -> None:
    with pytest.raises(MlxdError) as caught:
        choose_tools(shown, {}, choice)
    assert caught.value.fault.field == field


def test_without_tools_parallel_calls_are_no_question() -> None:
    assert choose_tools((), {}, Choice(single="p")) == Tools()


def test_schemas_go_as_they_are() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    assert schema_constraint(schema, "s") == forms.JsonSchema(
        schema=b'{"type":"object","properties":{"b":{},"a":{}}}'
    )
    for bad in ({}, {"maximum": 10**30}):
        with pytest.raises(MlxdError) as caught:
            schema_constraint(bad, "s")
        assert caught.value.fault.field == "s"
