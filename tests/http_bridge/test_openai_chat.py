"""Chat translation: bodies to requests, frames to chunks that the official types accept."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.openai_chat import ChatReply, read_chat, read_data_url
from http_bridge.plan import Plan

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
    assert plan == Plan(
        model="org/m",
        needs=("chat",),
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
    assert (
        read(
            n=1,
            user="u",
            metadata={"a": "b"},
            store=False,
            logprobs=False,
            parallel_tool_calls=True,
            response_format={"type": "text"},
            tool_choice="auto",
            stop=None,
            temperature=None,
            stream=None,
        )
        == read()
    )


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
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"zz": 1}}, "stream_options.zz"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"store": True}, "store"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            "tools[0].function.strict",
        ),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": -1}, "keep_alive"),
        ({"keep_alive": "5m", "ttl": 5}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
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
    assert plan.needs == ("vision", "chat")
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
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert read(tools=[tool]).generate.tools == (tool,)
    assert read(tools=[tool]).needs == ("chat", "tools")
    assert read(tools=[tool], tool_choice="none").generate.tools == ()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", "only data: URLs"),
        ("http://127.0.0.1/a.png", "only data: URLs"),
        ("file:///etc/passwd", "only data: URLs"),
        ("/etc/passwd", "only data: URLs"),
        ("data:image/png;base64", "only data: URLs"),
        ("data:image/svg+xml;base64,AAAA", "'image/svg\\+xml' is not accepted"),
        ("data:;base64,AAAA", "'no type' is not accepted"),
        ("data:text/html,hello", "'text/html' is not accepted"),
        ("data:image/png,hello", "has to be base64"),
        ("data:image/png;base64,AAA", "not valid base64"),
        ("data:image/png;base64,AA AA", "not valid base64"),
        ("data:image/png;base64,\u00e4\u00e4\u00e4\u00e4", "not valid base64"),
        ("data:image/png;base64,", "holds no bytes"),
    ],
)
def test_other_pictures_are_refused(url: str, said: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    message = {"role": "user", "content": [{"type": "text", "text": "?"}, part]}
    with pytest.raises(MlxdError, match=said) as caught:
        read(messages=[HELLO, message])
    assert caught.value.fault.field == "messages[1].content[1].image_url.url"


def test_pictures_belong_to_users() -> None:
    part = {"type": "image_url", "image_url": {"url": PNG_URL}}
    fault = refused(messages=[{"role": "system", "content": [part]}])
    assert fault.field == "messages[0].content[0].type"


@given(st.binary(min_size=1), st.sampled_from(["png", "jpeg", "webp", "gif", "PNG"]))
def test_a_data_url_gives_its_bytes_back(data: bytes, kind: str) -> None:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    assert read_data_url(url, "url") == data
