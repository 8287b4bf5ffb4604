"""Bodies of /v1/responses: items to turns, every field honoured or refused by its name."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.wire import data as d
from daemon.wire import forms
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.naming import capabilities_of
from http_bridge.openai_responses import read_responses
from http_bridge.plan import Plan
from tests.http_bridge.plans import bare, needs

PNG = b"\x89PNG\r\n\x1a\n"
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}


def read(**fields: Any) -> Plan:
    return read_responses(json.dumps({"model": "m", "input": "Hi", **fields}).encode(), "r")[0]


def refused(**fields: Any) -> Fault:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.code is Code.INVALID_REQUEST
    return caught.value.fault


def test_every_honoured_parameter_reaches_the_worker() -> None:
    plan = read(
        instructions="Be brief.",
        stream=True,
        max_output_tokens=9,
        temperature=0,
        top_p=0.5,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        text={"format": {"type": "text"}, "verbosity": "medium"},
        tools=[{**TOOL, "description": "d"}],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"effort": "none"},
        metadata={"a": "b"},
        user="u",
        service_tier="auto",
        truncation="disabled",
        store=False,
        background=False,
        top_k=3,
        min_p=0.1,
        seed=5,
        repetition_penalty=1.1,
        keep_alive="5m",
    )
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert bare(plan) == Plan(
        model="m",
        needs=needs(("tools", "tools"), ("logprobs", "include")),
        generate=d.Generate(
            lease="",
            request="r",
            messages=(
                d.ChatMessage(role="system", parts=(d.TextPart(text="Be brief."),)),
                d.ChatMessage(role="user", parts=(d.TextPart(text="Hi"),)),
            ),
            template_kwargs={"enable_thinking": False},
            tools=({"type": "function", "function": function},),
            sampling=d.Sampling(
                temperature=0, top_p=0.5, top_k=3, min_p=0.1, seed=5, repetition_penalty=1.1
            ),
            max_tokens=9,
            logprobs=2,
        ),
        stream=True,
        ttl_s=300,
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": "x", "zz": 1}]}, "input[0].zz"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "system", "content": [
                {"type": "input_image", "image_url": PNG_URL}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": "https://example.org/a.png"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {"input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": PNG_URL, "detail": "low"}]}]},
            "input[0].content[0].detail",
        ),
        ({"input": [{"type": "reasoning", "summary": [{"text": "x"}]}]}, "input[0].summary"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"prompt": {"id": "x"}}, "prompt"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    fault = refused(**fields)
    assert fault.field == param
    assert fault.message.startswith(f"{param}: ")


def test_items_become_turns() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    plan = read(
        input=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
                    {"type": "input_text", "text": "and"},
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": [],
             "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": None},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Look", "annotations": []}]},
            {**call, "id": "fc_1", "status": "completed"},
            {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "5"}]},
        ]
    )  # fmt: skip
    assert capabilities_of(plan.needs) == ("vision", "chat")
    assert plan.generate.messages == (
        d.ChatMessage(role="system", parts=(d.TextPart(text="Be brief."),)),
        d.ChatMessage(role="user", parts=(d.ImagePart(data=PNG), d.TextPart(text="and"))),
        d.ChatMessage(
            role="assistant",
            parts=(d.TextPart(text="Look"),),
            reasoning="hm",
            tool_calls=(
                d.ToolCall(id="c1", name="f", arguments="{}"),
                d.ToolCall(id="c2", name="f", arguments="{}"),
            ),
        ),
        d.ChatMessage(role="tool", tool_call_id="c1", parts=(d.TextPart(text="4"),)),
        d.ChatMessage(role="tool", tool_call_id="c2", parts=(d.TextPart(text="5"),)),
    )


def test_what_depends_on_the_model() -> None:
    plan = read(
        tools=[{**TOOL, "strict": True}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
        reasoning={"effort": "low"},
    )
    assert plan.generate.call_one_of == ("f",)
    assert plan.generate.tool_calls_max == 1
    assert plan.generate.constraint == forms.JsonSchema(schema=b'{"a":1}')
    assert [need.field for need in plan.needs] == [
        "model",
        "tools",
        "tools[0].strict",
        "tool_choice",
        "parallel_tool_calls",
        "text.format",
        "reasoning.effort",
    ]
    for own, taken in (
        ({"type": "regex", "regex": "a"}, forms.Regex("a")),
        ({"type": "grammar", "grammar": "start: a"}, forms.Grammar("start: a")),
    ):
        plan = read(text={"format": own})
        assert plan.generate.constraint == taken
        assert plan.needs == needs(("structured", "text.format"))
    assert read(text={"format": {"type": "json_object"}}).needs == needs(
        ("structured", "text.format")
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_a_typed_refusal(body: bytes) -> None:
    with pytest.raises(MlxdError) as caught:
        read_responses(body, "r")
    assert caught.value.code is Code.INVALID_REQUEST
