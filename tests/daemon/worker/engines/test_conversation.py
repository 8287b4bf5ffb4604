"""Requests in the shape that templates read, and refusals that name the field."""

from typing import Any

import pytest

from daemon.wire.data import ChatMessage, Generate, ImagePart, TextPart, ToolCall
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.conversation import (
    answer_tokens,
    check_request,
    prompt_ids,
    template_messages,
    vocabulary,
)


def test_parts_keep_their_order() -> None:
    parts = (TextPart("a"), ImagePart(b"1"), TextPart("b"), ImagePart(b"2"))
    (shaped,) = template_messages([ChatMessage(role="user", parts=parts)], parts=True)
    assert shaped["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "text", "text": "b"},
        {"type": "image"},
    ]


def test_text_alone_is_a_string_unaltered() -> None:
    message = ChatMessage(role="user", parts=(TextPart(" a\n"), TextPart("b ")))
    assert template_messages([message], parts=True)[0]["content"] == " a\nb "


def test_calls_results_and_reasoning() -> None:
    call = ToolCall(id="c1", name="f", arguments='{"x": 1}')
    shaped = template_messages(
        [
            ChatMessage(role="assistant", reasoning="hm", tool_calls=(call,)),
            ChatMessage(role="tool", tool_call_id="c1", name="f", parts=(TextPart("42"),)),
        ],
        parts=False,
    )
    function = {"name": "f", "arguments": {"x": 1}}
    assert shaped == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"},
    ]


def test_arguments_that_are_not_json() -> None:
    call = ToolCall(id="c1", name="f", arguments="{x")
    with pytest.raises(MlxdError) as caught:
        template_messages([ChatMessage(role="assistant", tool_calls=(call,))], parts=False)
    assert caught.value.fault.field == "messages[0].tool_calls[0].arguments"


TALK: Any = (ChatMessage(role="user", parts=(TextPart("x"),)),)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Generate(lease="l"), "messages"),
        (Generate(lease="l", messages=TALK, prompt="x"), "messages"),
        (Generate(lease="l", messages=()), "messages"),
        (Generate(lease="l", messages=TALK, max_tokens=0), "max_tokens"),
        (Generate(lease="l", messages=TALK, logprobs=21), "logprobs"),
        (Generate(lease="l", messages=TALK, tools=({},)), "tools"),
        (Generate(lease="l", prompt="x", tools=({},)), "tools"),
        (Generate(lease="l", messages=TALK, template_kwargs={"tools": 1}), "template_kwargs"),
    ],
)
def test_refusals(request_: Generate, field: str) -> None:
    with pytest.raises(MlxdError) as caught:
        check_request(request_, tools=False)
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)


def test_what_fits() -> None:
    check_request(Generate(lease="l", messages=TALK, tools=({},)), tools=True)
    assert answer_tokens(Generate(lease="l", prompt="x"), 10, 100) == 90
    assert answer_tokens(Generate(lease="l", prompt="x", max_tokens=90), 10, 100) == 90
    assert prompt_ids((0, 9), 10) == [0, 9]


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "numbers"), [(100, None, "100"), (10, 91, "at most 90")]
)
def test_what_does_not_fit_is_said_with_numbers(
    prompt_tokens: int, max_tokens: int | None, numbers: str
) -> None:
    with pytest.raises(MlxdError, match=numbers):
        answer_tokens(Generate(lease="l", prompt="x", max_tokens=max_tokens), prompt_tokens, 100)


def test_token_ids_beyond_the_vocabulary() -> None:
    with pytest.raises(MlxdError) as caught:
        prompt_ids((1, 10), 10)
    assert caught.value.fault.field == "prompt[1]"


def test_vocabulary_is_the_models_and_not_the_tokenizers() -> None:
    assert vocabulary({"vocab_size": 5}, 9) == 5
    assert vocabulary({"text_config": {"vocab_size": 6}}, 9) == 6
    assert vocabulary({"text_config": None}, 9) == 9
