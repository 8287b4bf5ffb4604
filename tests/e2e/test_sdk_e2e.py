"""The official SDK in the hands of an app: two pictures, streamed, and left early."""

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import openai
import pytest

from daemon.wire.control import ResidentModel
from tests.e2e.service import Service, eventually

pytestmark = pytest.mark.e2e

Text = Callable[[str], str]


def two_pictures(picture: Text, golden: Text) -> list[Any]:
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": picture(name)}}
        for name in ("red_square.png", "blue_circle.png")
    ]
    question = {"type": "text", "text": golden("vision/compare_images.txt")}
    return [{"role": "user", "content": [*parts, question]}]


def test_a_streamed_comparison_of_two_pictures(
    client: openai.OpenAI, vision_model: str, picture: Text, golden: Text
) -> None:
    stream = client.chat.completions.create(
        model=vision_model,
        messages=two_pictures(picture, golden),
        temperature=0,
        max_tokens=80,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    answer = "".join(pieces).lower()
    assert len([piece for piece in pieces if piece]) > 5
    for word in ("red", "square", "blue", "circle"):
        assert word in answer
    assert answer.index("red") < answer.index("blue"), "in the order in which they were sent"


@pytest.mark.anyio
async def test_leaving_a_stream_early_frees_its_slot(
    service: Service, vision_model: str, picture: Text, golden: Text
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=120
    ) as sdk:
        stream = await sdk.chat.completions.create(
            model=vision_model,
            messages=two_pictures(picture, golden),
            temperature=0,
            stream=True,
        )
        async for _ in stream:
            break
        await stream.close()

    def model() -> ResidentModel:
        return next(m for m in service.status().models if m.name == vision_model)

    def left() -> ResidentModel:
        return eventually(model, lambda m: m.state == "idle")

    after = await anyio.to_thread.run_sync(left)
    assert (after.running, after.leases) == (0, 0)
