"""Anthropic's protocol by its official SDK, on the same models.

The SDK knows no temperature; the bundled model's own default is greedy.
"""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.e2e_anthropic]

Text = Callable[[str], str]


@pytest.fixture(scope="module")
def sdk(service: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


def with_picture(picture: Text, prompt: str) -> list[Any]:
    data = picture("red_square.png").removeprefix("data:image/png;base64,")
    source = {"type": "base64", "media_type": "image/png", "data": data}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": blocks}]


def test_a_picture_is_described_in_the_words_of_the_other_protocol(
    sdk: anthropic.Anthropic,
    client: openai.OpenAI,
    vision_model: str,
    picture: Text,
    golden: Text,
) -> None:
    prompt = golden("vision/describe_image.txt")
    message = sdk.messages.create(
        model=vision_model,
        max_tokens=80,
        messages=with_picture(picture, prompt),
    )
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": picture("red_square.png")}},
        {"type": "text", "text": prompt},
    ]
    other = client.chat.completions.create(
        model=vision_model,
        max_tokens=80,
        temperature=0,
        messages=[{"role": "user", "content": parts}],
    )
    (block,) = message.content
    assert block.type == "text"
    assert block.text == other.choices[0].message.content
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert other.usage is not None
    assert message.usage.input_tokens == other.usage.prompt_tokens
    assert message.usage.output_tokens == other.usage.completion_tokens


def test_a_stream_has_every_event_in_its_order(
    sdk: anthropic.Anthropic, vision_model: str, picture: Text, golden: Text
) -> None:
    prompt = golden("vision/describe_image.txt")
    with sdk.messages.stream(
        model=vision_model,
        max_tokens=80,
        messages=with_picture(picture, prompt),
    ) as stream:
        types = [str(event.type) for event in stream]
        final = stream.get_final_message()
    raw = [t for t in types if t not in ("text", "ping")]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert raw.count("content_block_delta") >= 3
    assert final.stop_reason == "end_turn"
    assert "red" in "".join(b.text for b in final.content if b.type == "text")


def test_length_and_stop_reasons(sdk: anthropic.Anthropic, vision_model: str) -> None:
    hello: list[Any] = [{"role": "user", "content": "Hello!"}]
    short = sdk.messages.create(model=vision_model, max_tokens=2, messages=hello)
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 2
    whole = sdk.messages.create(model=vision_model, max_tokens=60, messages=hello)
    (block,) = whole.content
    assert block.type == "text"
    word = block.text.split()[1]
    stopped = sdk.messages.create(
        model=vision_model, max_tokens=60, messages=hello, stop_sequences=[word]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert all(word not in b.text for b in stopped.content if b.type == "text")


def test_errors_have_the_protocols_own_shape(sdk: anthropic.Anthropic) -> None:
    hello: list[Any] = [{"role": "user", "content": "Hello!"}]
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.messages.create(model="no/such-model", max_tokens=5, messages=hello)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert "no/such-model" in body["error"]["message"]
