"""Vision over HTTP: a real daemon, a real worker, a real model, real pictures.

The quick tier (6) proves that pictures reach the model and answers come back; the full
tier (4) asks for exact answers.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

Text = Callable[[str], str]
pytestmark = [pytest.mark.e2e, pytest.mark.e2e_vision]
quick = pytest.mark.e2e_vision_quick
full = pytest.mark.e2e_vision_full

RED, BLUE, WORDS = "red_square.png", "blue_circle.png", "text_sample.png"


def messages(prompt: str, *pictures: str) -> list[Any]:
    """One user turn: the pictures, then the question."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}} for url in pictures
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}]


@pytest.fixture
def ask(
    client: openai.OpenAI, vision_model: str, picture: Text, golden: Text
) -> Callable[..., ChatCompletion]:
    """Ask a golden prompt about fixture pictures, greedily."""

    def completion(prompt: str, *pictures: str) -> ChatCompletion:
        return client.chat.completions.create(
            model=vision_model,
            messages=messages(golden(f"vision/{prompt}.txt"), *map(picture, pictures)),
            temperature=0,
            max_tokens=80,
        )

    return completion


def text_of(reply: ChatCompletion) -> str:
    """The visible answer, once its envelope has been checked."""
    (choice,) = reply.choices
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert choice.index == 0
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert choice.message.content
    return choice.message.content


@quick
def test_red_square_is_described(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("describe_image", RED)).lower()
    assert "red" in answer
    assert "blue" not in answer


@quick
def test_blue_circle_is_described(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("describe_image", BLUE)).lower()
    assert "blue" in answer
    assert "red" not in answer.replace("rendered", "")


@quick
def test_two_pictures_are_compared(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("compare_images", RED, BLUE)).lower()
    assert "red" in answer
    assert "blue" in answer


@quick
def test_text_is_read(ask: Callable[..., ChatCompletion]) -> None:
    assert "hello" in text_of(ask("ocr_text", WORDS)).lower()


@quick
def test_stream_is_the_greedy_answer_in_pieces(
    ask: Callable[..., ChatCompletion],
    http: httpx.Client,
    vision_model: str,
    picture: Text,
    golden: Text,
) -> None:
    body = {
        "model": vision_model,
        "messages": messages(golden("vision/describe_image.txt"), picture(RED)),
        "temperature": 0,
        "max_tokens": 80,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    whole = ask("describe_image", RED)
    _check_chunks(chunks)
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == text_of(whole)
    assert whole.usage is not None
    assert chunks[-1]["usage"]["completion_tokens"] == whole.usage.completion_tokens
    assert chunks[-1]["usage"]["prompt_tokens"] == whole.usage.prompt_tokens


def _check_chunks(chunks: list[dict[str, Any]]) -> None:
    """One id, the role first, text in several pieces, one reason at the end, then usage."""
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["delta"].get("content")]
    assert len(pieces) >= 3, "streamed means in pieces"
    reasons = [c["choices"][0]["finish_reason"] for c in chunks[:-1]]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert chunks[-1]["choices"] == []


@quick
def test_picture_for_a_text_model_is_refused(
    http: httpx.Client, text_model: str, picture: Text
) -> None:
    body = {"model": text_model, "messages": messages("What is this?", picture(RED))}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert text_model in error["message"]
    assert "text only" in error["message"]
    assert reply.headers["x-should-retry"] == "false"


@full
def test_red_square_by_colour_and_shape(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("describe_image", RED)).lower()
    assert "red" in answer
    assert "square" in answer


@full
def test_blue_circle_by_colour_and_shape(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("describe_image", BLUE)).lower()
    assert "blue" in answer
    assert "circle" in answer


@full
def test_text_is_read_exactly(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("ocr_text", WORDS))
    assert "Hello" in answer
    assert "MLX" in answer


@full
def test_comparison_names_all_four(ask: Callable[..., ChatCompletion]) -> None:
    answer = text_of(ask("compare_images", RED, BLUE)).lower()
    missing = [word for word in ("red", "square", "blue", "circle") if word not in answer]
    assert not missing, answer
