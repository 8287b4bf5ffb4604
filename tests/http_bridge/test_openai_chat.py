"""Chat translation: bodies to requests, frames to chunks that the official types accept."""

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
from http_bridge.openai_chat import read_chat
from http_bridge.plan import Plan
from tests.http_bridge.plans import CHAT, bare, needs

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HELLO = {"role": "user", "content": "Hello"}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def read(**fields: Any) -> Plan:
    body = {"model": "m", "messages": [HELLO], **fields}
    return read_chat(json.dumps(body).encode(), "chatcmpl-1")[0]


def refused(**fields: Any) -> Fault:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.code is Code.INVALID_REQUEST
    return caught.value.fault


def test_a_plain_request() -> None:
    plan, include_usage = read_chat(
        b'{"model":"org/m","messages":[{"role":"user","content":"Hi"}]}', "chatcmpl-1"
    )
    assert bare(plan) == Plan(
        model="org/m",
        needs=(CHAT,),
        generate=d.Generate(
            lease="",
            request="chatcmpl-1",
            messages=(d.ChatMessage(role="user", parts=(d.TextPart(text="Hi"),)),),
        ),
    )
    assert include_usage is False


def test_every_honoured_parameter_reaches_the_worker() -> None:
    plan = read(
        stream=True,
        stream_options={"include_usage": True},
        max_completion_tokens=7,
        temperature=0,
        top_p=0.9,
        top_k=4,
        min_p=0.05,
        seed=11,
        stop=["a", "b"],
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.1,
        logit_bias={"5": -100},
        chat_template_kwargs={"enable_thinking": False},
        keep_alive="5m",
    )
    assert plan.stream is True
    assert plan.ttl_s == 300
    assert plan.generate.max_tokens == 7
    assert plan.generate.stop == ("a", "b")
    assert plan.generate.template_kwargs == {"enable_thinking": False}
    assert plan.generate.sampling == d.Sampling(
        temperature=0,
        top_p=0.9,
        top_k=4,
        min_p=0.05,
        seed=11,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.1,
        logit_bias={5: -100},
    )


def test_parameters_that_change_nothing_are_accepted() -> None:
    assert bare(
        read(
            n=1,
            user="u",
            metadata={"a": "b"},
            store=False,
            logprobs=False,
            parallel_tool_calls=True,
            response_format={"type": "text"},
            tool_choice="auto",
            modalities=["text"],
            service_tier="auto",
            safety_identifier="x",
            prompt_cache_key="y",
            priority="normal",
            stop=None,
            temperature=None,
            stream=None,
        )
    ) == bare(read())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [HELLO, {"role": "user", "content": "x", "zz": 1}]}, "messages[1].zz"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"zz": 1}}, "stream_options.zz"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice.type"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.grammar"),
        ({"response_format": {"type": "regex", "regex": ""}}, "response_format.regex"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}},
                }
            },
            "response_format.json_schema.schema",
        ),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"store": True}, "store"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"service_tier": "scale"}, "service_tier"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"service_tier": "flex", "priority": "high"}, "service_tier"),
        ({"priority": 11}, "priority"),
        ({"priority": -11}, "priority"),
        ({"priority": "urgent"}, "priority"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": True}},
            "reasoning_effort",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"keep_alive": "5m", "ttl": 5}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"zz": 1}, "zz"),
        ({"chat_template_kwargs": {"a": 10**30}}, "chat_template_kwargs"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    fault = refused(**fields)
    assert fault.field == param
    assert fault.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"a":1}x', b"\xff{}", b'{"temperature": NaN}',
     b'{"chat_template_kwargs":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}"],
)  # fmt: skip
def test_bodies_that_are_no_json_object_are_refused(body: bytes) -> None:
    with pytest.raises(MlxdError) as caught:
        read_chat(body, "chatcmpl-1")
    assert caught.value.code is Code.INVALID_REQUEST


@given(st.binary(max_size=200))
def test_random_bytes_are_a_typed_refusal(body: bytes) -> None:
    with pytest.raises(MlxdError) as caught:
        read_chat(body, "chatcmpl-1")
    assert caught.value.code is Code.INVALID_REQUEST


def test_a_conversation_keeps_its_order_and_parts() -> None:
    plan = read(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "auto"}},
                    {"type": "text", "text": "and"},
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "annotations": [],
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]},
        ]
    )
    picture = d.ImagePart(data=PNG)
    assert capabilities_of(plan.needs) == ("vision", "chat")
    assert plan.generate.messages == (
        d.ChatMessage(role="system", parts=(d.TextPart(text="Be brief."),)),
        d.ChatMessage(role="user", name="ann", parts=(picture, d.TextPart(text="and"), picture)),
        d.ChatMessage(
            role="assistant",
            reasoning="hm",
            tool_calls=(d.ToolCall(id="c1", name="f", arguments="{}"),),
        ),
        d.ChatMessage(role="tool", tool_call_id="c1", parts=(d.TextPart(text="4"),)),
    )


def test_tools_reach_the_template_as_they_were_written() -> None:
    assert read(tools=[TOOL]).generate.tools == (TOOL,)
    assert read(tools=[TOOL]).needs == needs(("tools", "tools"))
    assert read(tools=[TOOL], tool_choice="none").generate.tools == ()
    assert bare(read(parallel_tool_calls=False)) == bare(read())


def test_a_choice_among_tools_needs_structured_output() -> None:
    other = {"type": "function", "function": {"name": "g", "strict": True}}
    plan = read(tools=[TOOL, other], tool_choice="required", parallel_tool_calls=False)
    assert plan.generate.call_one_of == ("f", "g")
    assert plan.generate.tool_calls_max == 1
    assert plan.generate.strict_tools == ("g",)
    assert plan.needs == needs(
        ("tools", "tools"),
        ("structured", "tools[1].function.strict"),
        ("structured", "tool_choice"),
        ("structured", "parallel_tool_calls"),
    )
    named = {"type": "function", "function": {"name": "f"}}
    plan = read(tools=[TOOL, other], tool_choice=named)
    assert plan.generate.call_one_of == ("f",)


def test_formats_need_structured_output() -> None:
    plan = read(response_format={"type": "regex", "regex": "[0-9]+"})
    assert plan.generate.constraint == forms.Regex("[0-9]+")
    plan = read(response_format={"type": "grammar", "grammar": 'start: "a"'})
    assert plan.generate.constraint == forms.Grammar('start: "a"')
    plan = read(response_format={"type": "json_object"})
    assert plan.generate.constraint == forms.AnyJson()
    assert plan.needs == needs(("structured", "response_format"))
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    named = {"name": "n", "schema": schema, "strict": True, "description": "x"}
    plan = read(response_format={"type": "json_schema", "json_schema": named})
    assert plan.generate.constraint == forms.JsonSchema(
        schema=json.dumps(schema, separators=(",", ":")).encode()
    )
    assert plan.needs == needs(("structured", "response_format"))


def test_effort_is_the_templates_affair() -> None:
    plan = read(reasoning_effort="none", chat_template_kwargs={"x": 1})
    assert plan.generate.template_kwargs == {"x": 1, "enable_thinking": False}
    assert plan.needs == needs()
    plan = read(reasoning_effort="high")
    assert plan.generate.template_kwargs == {"enable_thinking": True, "reasoning_effort": "high"}
    assert plan.needs == needs(("reasoning_effort", "reasoning_effort"))
    assert read(reasoning_effort="medium").needs == needs()


def test_priority_logprobs_and_choices() -> None:
    for fields, value in (
        ({"priority": "high"}, 5),
        ({"priority": "low"}, -5),
        ({"priority": -10}, -10),
        ({"service_tier": "flex"}, -5),
        ({"service_tier": "priority"}, 5),
        ({"service_tier": "priority", "priority": 5}, 5),
    ):
        plan = read(**fields)
        assert (plan.priority, plan.generate.priority) == (value, value)
    assert read(logprobs=True).generate.logprobs == 0
    assert read(logprobs=True).needs == needs(("logprobs", "logprobs"))
    assert read(logprobs=True, top_logprobs=5).generate.logprobs == 5
    assert read(n=3).choices == 3


def test_pictures_belong_to_users() -> None:
    part = {"type": "image_url", "image_url": {"url": PNG_URL}}
    fault = refused(messages=[{"role": "system", "content": [part]}])
    assert fault.field == "messages[0].content[0].type"
