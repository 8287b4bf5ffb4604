"""Whatever a body holds: it is understood, or it is a typed refusal. Never anything else."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.wire import control as c
from daemon.wire.data import WorkRequest
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import DATA_FRAME_BYTES_MAX, encode_frame
from http_bridge.anthropic_messages import read_count, read_messages
from http_bridge.embeddings import read_embeddings
from http_bridge.exchange import Call
from http_bridge.openai_chat import read_chat
from http_bridge.openai_completions import read_completion
from http_bridge.openai_responses import read_responses
from http_bridge.plan import Plan
from http_bridge.speech import read_speech
from http_bridge.transcription import read_transcription

PNG_URL = "data:image/png;base64,iVBORw0KGgo="
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
GRANTED = c.Granted(
    id=1,
    lease="l",
    model="m",
    worker="1",
    socket="s",
    kind="text",
    capabilities=("structured", "thinking", "thinking_budget", "reasoning_effort"),
    context_tokens=1,
)

CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "auto"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}},
    "logit_bias": {"5": 1.5},
    "stop": ["a"],
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "keep_alive": "5m",
    "metadata": {"a": "b"},
    "chat_template_kwargs": {"x": [1, {"y": None}]},
}
RESPONSES = {
    "model": "m",
    "input": [
        {"role": "user", "content": [{"type": "input_image", "image_url": PNG_URL}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "h"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ],
    "instructions": "i",
    "tools": [{"type": "function", **FUNCTION, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
}
MESSAGES = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "image", "source": SOURCE}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "h", "signature": ""},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 3},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}},
    "metadata": {"user_id": "u"},
}
COUNT = {key: MESSAGES[key] for key in ("model", "messages", "system", "tools", "thinking")}


def of_plan(plan: Plan) -> WorkRequest:
    return plan.for_lease(GRANTED)


def of_call(call: Call) -> WorkRequest:
    return call.make(GRANTED)


READERS: dict[str, tuple[dict[str, Any], Callable[[bytes], WorkRequest]]] = {
    "chat": (CHAT, lambda body: of_plan(read_chat(body, "r")[0])),
    "completions": (
        {"model": "m", "prompt": ["x"], "stop": "y", "logprobs": 1, "stream": True, "ttl": 1.5,
         "stream_options": {"include_usage": True}},
        lambda body: of_plan(read_completion(body, "r")[0]),
    ),
    "responses": (RESPONSES, lambda body: of_plan(read_responses(body, "r")[0])),
    "messages": (MESSAGES, lambda body: of_plan(read_messages(body, "r"))),
    "count": (COUNT, lambda body: of_call(read_count(body, "r"))),
    "embeddings": (
        {"model": "m", "input": ["a", [1, 2]], "dimensions": 3},
        lambda body: of_call(read_embeddings(body, "r")[0]),
    ),
    "speech": (
        {"model": "m", "input": "a", "voice": "v", "speed": 1.5, "response_format": "wav"},
        lambda body: of_call(read_speech(body, "r").call),
    ),
}  # fmt: skip

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["text", "auto", "none", "user", "assistant", "f", "", "5m", PNG_URL]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["type", "role"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within ``value``."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in list(keys):
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def understood_or_refused(read: Callable[[], WorkRequest]) -> bool:
    """Whether a body is a request that can be sent, or the caller's mistake."""
    try:
        request = read()
    except MlxdError as error:
        return error.code is Code.INVALID_REQUEST
    return bool(encode_frame(request, DATA_FRAME_BYTES_MAX))


@pytest.mark.parametrize("name", READERS)
def test_the_whole_body_is_understood(name: str) -> None:
    body, read = READERS[name]
    assert read(json.dumps(body).encode()).lease == "l"


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_is_understood_or_refused(name: str, data: st.DataObject) -> None:
    original, read = READERS[name]
    body = copy.deepcopy(original)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(body)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            container[key] = data.draw(values)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[data.draw(st.text(max_size=4))] = data.draw(values)
        else:
            container.append(data.draw(values))
        if not places(body):
            break
    text = json.dumps(body).encode()
    assert understood_or_refused(lambda: read(text))


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "file", "language", "prompt", "temperature", "ttl", "stream", "keep_alive",
             "response_format", "timestamp_granularities[]", "zz"]
        ) | st.text(max_size=4),
        st.lists(
            st.binary(max_size=6) | st.sampled_from([b"true", b"json", b"word", b"1e400", b"5m"]),
            min_size=1, max_size=2,
        ),
        max_size=5,
    )
)  # fmt: skip
def test_any_form_is_understood_or_refused(fields: dict[str, list[bytes]]) -> None:
    form = {"model": [b"m"], "file": [b"x"], **fields}
    assert understood_or_refused(lambda: read_transcription(form, "r").call.make(GRANTED))
