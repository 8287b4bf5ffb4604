"""Anthropic bodies: conversations in order, every field honoured or refused by its name."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire import forms
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.anthropic_messages import read_count, read_messages
from http_bridge.naming import capabilities_of
from http_bridge.plan import Plan
from tests.http_bridge.plans import bare, needs

HELLO = {"role": "user", "content": "Hello"}
PNG = b"\x89PNG\r\n\x1a\n"
SOURCE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}


def read(**fields: Any) -> Plan:
    body = {"model": "m", "max_tokens": 9, "messages": [HELLO], **fields}
    return read_messages(json.dumps(body).encode(), "msg_1")


def refused(**fields: Any) -> Fault:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.code is Code.INVALID_REQUEST
    return caught.value.fault


def test_a_wish_for_eager_tool_input_is_no_mistake() -> None:
    """The AI SDK sends it with every tool; a call comes once it is whole, in one delta."""
    eager = read(tools=[{**TOOL, "eager_input_streaming": True}])
    assert bare(eager) == bare(read(tools=[TOOL]))


def test_every_honoured_parameter_reaches_the_worker() -> None:
    plan = read(
        system=[{"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "brief."}],
        stream=True,
        stop_sequences=["a", "b"],
        temperature=1,
        top_p=0.5,
        top_k=3,
        metadata={"user_id": "u"},
        service_tier="auto",
        thinking={"type": "disabled"},
        tools=[TOOL],
        tool_choice={"type": "auto"},
        keep_alive="5m",
    )  # fmt: skip
    assert bare(plan) == Plan(
        model="m",
        needs=needs(("tools", "tools")),
        generate=d.Generate(
            lease="",
            request="msg_1",
            messages=(
                d.ChatMessage(
                    role="system", parts=(d.TextPart(text="Be "), d.TextPart(text="brief."))
                ),
                d.ChatMessage(role="user", parts=(d.TextPart(text="Hello"),)),
            ),
            template_kwargs={"enable_thinking": False},
            tools=(
                {
                    "type": "function",
                    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
                },
            ),
            sampling=d.Sampling(temperature=1, top_p=0.5, top_k=3),
            max_tokens=9,
            stop=("a", "b"),
        ),
        stream=True,
        ttl_s=300,
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [HELLO, {"role": "assistant", "content": "So"}]}, "messages[1]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "messages[0].content[0].type",
        ),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{**TOOL, "type": "web_search_20250305"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tools": [{**TOOL, "input_schema": {"a": 10**30}}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}},
         "output_config.format.schema"),
        ({"metadata": {"zz": 1}}, "metadata.zz"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    fault = refused(**fields)
    assert fault.field == param
    assert fault.message.startswith(f"{param}: ")


def test_max_tokens_is_required() -> None:
    with pytest.raises(MlxdError, match="max_tokens: required"):
        read_messages(json.dumps({"model": "m", "messages": [HELLO]}).encode(), "msg_1")


def test_a_conversation_keeps_its_order() -> None:
    plan = read(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": SOURCE},
                    {"type": "text", "text": "and"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "Look: "},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": "x"}},
                    {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "4"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "no"}],
                    },
                    {"type": "text", "text": "Go on."},
                ],
            },
        ]
    )
    assert capabilities_of(plan.needs) == ("vision", "chat")
    assert plan.generate.messages == (
        d.ChatMessage(role="user", parts=(d.ImagePart(data=PNG), d.TextPart(text="and"))),
        d.ChatMessage(
            role="assistant",
            parts=(d.TextPart(text="Look: "),),
            reasoning="hm",
            tool_calls=(
                d.ToolCall(id="t1", name="f", arguments='{"b":1,"a":"x"}'),
                d.ToolCall(id="t2", name="f", arguments="{}"),
            ),
        ),
        d.ChatMessage(role="tool", tool_call_id="t1", parts=(d.TextPart(text="4"),)),
        d.ChatMessage(
            role="tool",
            tool_call_id="t2",
            parts=(d.TextPart(text="Error: "), d.TextPart(text="no")),
        ),
        d.ChatMessage(role="user", parts=(d.TextPart(text="Go on."),)),
    )


def picture(data: bytes) -> dict[str, Any]:
    """A block whose bytes tell it from others."""
    return {"type": "image", "source": {**SOURCE, "data": base64.b64encode(data).decode()}}


def result(of: str, *content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": of, "content": content, **more}


def test_pictures_of_results_follow_them_in_their_order() -> None:
    """What agents send with a screenshot; results of one turn of the model stay together."""
    text = {"type": "text", "text": "page"}
    go_on = {"type": "text", "text": "Go on."}
    turns = [
        [result("t1", text, picture(b"1"), picture(b"2")), result("t2", picture(b"3")), go_on,
         picture(b"4"), result("t3", picture(b"5"), is_error=True)],
        [picture(b"6"), result("t4", picture(b"7")), result("t5")],
    ]  # fmt: skip
    plan = read(messages=[{"role": "user", "content": content} for content in turns])
    assert plan.generate.messages is not None
    shown = [
        (m.role, m.tool_call_id, [p.text if isinstance(p, d.TextPart) else p.data for p in m.parts])
        for m in plan.generate.messages
    ]
    assert shown == [
        ("tool", "t1", ["page"]),
        ("tool", "t2", []),
        ("user", None, [b"1", b"2", b"3", "Go on.", b"4"]),
        ("tool", "t3", ["Error: "]),
        ("user", None, [b"5"]),
        ("user", None, [b"6"]),
        ("tool", "t4", []),
        ("tool", "t5", []),
        ("user", None, [b"7"]),
    ]
    assert capabilities_of(plan.needs) == ("vision", "chat")
    assert plan.names.places().pictures == [
        f"messages[{turn}].content[{at}].source.data"
        for turn, at in [
            (0, "0].content[1"), (0, "0].content[2"), (0, "1].content[0"), (0, 3),
            (0, "4].content[0"), (1, 0), (1, "1].content[0"),
        ]
    ]  # fmt: skip


def test_a_result_s_picture_is_refused_where_it_stands() -> None:
    bad = {"type": "image", "source": {**SOURCE, "data": "A"}}
    fault = refused(messages=[{"role": "user", "content": [result("t", bad)]}])
    assert fault.field == "messages[0].content[0].content[0].source.data"


@pytest.mark.parametrize(
    ("source", "field", "said"),
    [
        ({"type": "url", "url": "https://example.org/a.png"}, "source", "never fetched"),
        ({**SOURCE, "media_type": "image/tiff"}, "source.media_type", "'image/tiff' is not"),
        ({**SOURCE, "data": "A"}, "source.data", "not valid base64"),
        ({"type": "file", "file_id": "x"}, "source.type", "Invalid value 'file'"),
    ],
)
def test_other_pictures_are_refused(source: dict[str, Any], field: str, said: str) -> None:
    block = {"type": "image", "source": source}
    fault = refused(messages=[{"role": "user", "content": [block]}])
    assert fault.field == f"messages[0].content[0].{field}"
    assert said.lower() in fault.message.lower()


def test_what_depends_on_the_model() -> None:
    plan = read(
        tools=[{**TOOL, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 8},
        output_config={"format": {"type": "json_schema", "schema": {"a": 1}}, "effort": "high"},
        priority="high",
    )
    assert plan.generate.call_one_of == ("f",)
    assert plan.generate.tool_calls_max == 1
    assert plan.generate.strict_tools == ("f",)
    assert plan.generate.reasoning_tokens_max == 8
    assert plan.generate.constraint == forms.JsonSchema(schema=b'{"a":1}')
    assert plan.generate.priority == plan.priority == 5
    assert plan.generate.template_kwargs == {"enable_thinking": True, "reasoning_effort": "high"}
    assert plan.needs == needs(
        ("tools", "tools"),
        ("structured", "tools[0].strict"),
        ("structured", "tool_choice"),
        ("structured", "tool_choice.disable_parallel_tool_use"),
        ("structured", "output_config.format"),
        ("reasoning_effort", "output_config.effort"),
        ("thinking", "thinking"),
        ("thinking_budget", "thinking.budget_tokens"),
    )
    assert read(thinking={"type": "adaptive"}).needs == needs(("thinking", "thinking"))
    assert read(tools=[TOOL], tool_choice={"type": "none"}).generate.tools == ()


def test_counting_sees_what_generating_would() -> None:
    fields = {"system": "s", "tools": [TOOL], "thinking": {"type": "disabled"}}
    body = {"model": "m", "messages": [HELLO], **fields}
    call = read_count(json.dumps(body).encode(), "count_1")
    granted = c.Granted(
        id=1, lease="l", model="m", worker="1", socket="s", kind="text", capabilities=(),
        context_tokens=1,
    )  # fmt: skip
    made = call.make(granted)
    generate = read(**fields).generate
    assert isinstance(made, d.CountTokens)
    assert capabilities_of(call.needs) == ("chat", "tools", "count_tokens")
    assert (made.lease, made.messages, made.tools, made.template_kwargs) == (
        "l",
        generate.messages,
        generate.tools,
        generate.template_kwargs,
    )
    with pytest.raises(MlxdError, match="max_tokens: unknown"):
        read_count(json.dumps({**body, "max_tokens": 1}).encode(), "count_1")


@given(st.binary(max_size=200))
def test_random_bytes_are_a_typed_refusal(body: bytes) -> None:
    with pytest.raises(MlxdError) as caught:
        read_messages(body, "msg_1")
    assert caught.value.code is Code.INVALID_REQUEST
