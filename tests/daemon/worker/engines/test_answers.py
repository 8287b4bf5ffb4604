"""Markers and tool formats, as mlx_lm finds them in a real tokenizer's files."""

from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from daemon.wire.data import Generate
from daemon.wire.forms import AnyJson
from daemon.worker.engines.answers import calls_tools, make_output, may_think
from daemon.worker.engines.output import Piece
from tests.contract.tiny import SPECIAL, build_text_model

TOOLS: tuple[dict[str, Any], ...] = ({"type": "function", "function": {"name": "get_weather"}},)
THOUGHT = "<think>hm, ☂?</think>Sure. "
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Tōkyō"}}</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(build_text_model(tmp_path_factory.mktemp("m")))


def read(tokenizer: Any, text: str, request: Generate, prompt: str = "") -> Piece:
    tokens = tokenizer.encode(prompt, add_special_tokens=False)
    output = make_output(tokenizer, tokenizer.detokenizer, request, tokens, "call_1")
    piece = Piece()
    for token in tokenizer.encode(text, add_special_tokens=False):
        piece += output.feed(token)
    return piece + output.finish()


def test_reasoning_text_and_calls_are_three_things(tokenizer: Any) -> None:
    piece = read(tokenizer, THOUGHT + CALL, Generate(lease="l", tools=TOOLS))
    assert (piece.reasoning, piece.text) == ("hm, ☂?", "Sure. ")
    (call,) = piece.tool_calls
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Tōkyō"}')


def test_calls_that_nobody_offered_stay_text(tokenizer: Any) -> None:
    assert read(tokenizer, CALL, Generate(lease="l")).text == CALL


def test_a_template_that_opened_reasoning(tokenizer: Any) -> None:
    piece = read(tokenizer, "hm</think>yes", Generate(lease="l"), prompt="a<think>")
    assert (piece.reasoning, piece.text) == ("hm", "yes")
    piece = read(tokenizer, "yes", Generate(lease="l"), prompt="<think>x</think>")
    assert (piece.reasoning, piece.text) == ("", "yes")


def test_a_document_may_hold_markers(tokenizer: Any) -> None:
    document = '{"a": "</think><think><tool_call>"}'
    request = Generate(lease="l", constraint=AnyJson(), tools=TOOLS)
    assert read(tokenizer, document, request).text == document
    piece = read(tokenizer, f"<think>hm</think>\n\n{document}", request)
    assert (piece.reasoning, piece.text) == ("hm", f"\n\n{document}")
    assert read(tokenizer, CALL, request).tool_calls


@pytest.mark.parametrize(
    ("prompt", "variables", "expected"),
    [
        ("x", {}, True),
        ("x", None, True),
        ("x", {"enable_thinking": True}, True),
        ("x", {"enable_thinking": False}, False),
        ("x", {"thinking": False}, False),
        ("x<think>", None, True),
        ("x<think>\n\n</think>\n\n", None, False),
        ("x</think>", None, False),
        ("<think>hm</think>yes<|im_end|>\n<|im_start|>assistant\n", None, True),
    ],
)
def test_whether_an_answer_may_open_thinking(
    tokenizer: Any, prompt: str, variables: dict[str, Any] | None, *, expected: bool
) -> None:
    request = Generate(lease="l", template_kwargs=variables)
    assert may_think(tokenizer, request, tokenizer.encode(prompt)) is expected


def test_a_tokenizer_without_markers(tmp_path: Path) -> None:
    build_text_model(tmp_path, special=tuple(s for s in SPECIAL if "think" not in s))
    plain = load_tokenizer(tmp_path)
    assert calls_tools(plain)
    assert not may_think(plain, Generate(lease="l"), [20])
    assert read(plain, "<think>x</think>", Generate(lease="l")).text == "<think>x</think>"
