"""Embeddings over HTTP, of a real model."""

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.service import EMBEDDER, Service

pytestmark = [pytest.mark.e2e, pytest.mark.e2e_embeddings]


@pytest.fixture(scope="module", autouse=True)
def resident(service: Service) -> Iterator[None]:
    service.mlxctl("load", EMBEDDER)
    yield
    service.mlxctl("unload", EMBEDDER)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_shape_order_norm_and_usage(client: openai.OpenAI) -> None:
    texts = ["a cat", "a kitten", "the Python programming language", "a cat"]
    reply = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert [item.index for item in reply.data] == [0, 1, 2, 3]
    vectors = [item.embedding for item in reply.data]
    assert {len(vector) for vector in vectors} == {384}
    assert all(abs(math.hypot(*vector) - 1) < 0.01 for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    assert cosine(vectors[0], vectors[3]) > 0.99
    alone = client.embeddings.create(model=EMBEDDER, input="a kitten", encoding_format="float")
    assert cosine(alone.data[0].embedding, vectors[1]) > 0.9999
    assert alone.usage.prompt_tokens == alone.usage.total_tokens > 0
    assert reply.usage.prompt_tokens > alone.usage.prompt_tokens


def test_base64_holds_the_same_floats(client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model=EMBEDDER, input="x", encoding_format="float")
    coded = client.embeddings.create(model=EMBEDDER, input="x", encoding_format="base64")
    data = coded.data[0].embedding
    assert isinstance(data, str)
    raw = base64.b64decode(data)
    floats = struct.unpack(f"<{len(raw) // 4}f", raw)
    shown = struct.pack(f"<{len(floats)}f", *plain.data[0].embedding)
    assert raw == shown, "the JSON numbers are the same 32-bit floats"
    assert client.embeddings.create(model=EMBEDDER, input="x").data[0].embedding == list(floats)


def test_fewer_dimensions_are_the_first_ones_at_length_one(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model=EMBEDDER, input="a cat").data[0].embedding
    short = client.embeddings.create(model=EMBEDDER, input="a cat", dimensions=64)
    vector = short.data[0].embedding
    assert len(vector) == 64
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
    assert cosine(vector, whole[:64]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=EMBEDDER, input="a cat", dimensions=385)
    assert caught.value.param == "dimensions"


def test_tokens_are_taken_as_they_are(client: openai.OpenAI) -> None:
    """The ids of "a cat" with BERT's frame, as its published vocabulary has them."""
    framed = [101, 1037, 4937, 102]
    text = client.embeddings.create(model=EMBEDDER, input="a cat")
    tokens = client.embeddings.create(model=EMBEDDER, input=framed)
    assert cosine(tokens.data[0].embedding, text.data[0].embedding) > 0.99999
    assert tokens.usage.prompt_tokens == text.usage.prompt_tokens == len(framed)
    both = client.embeddings.create(model=EMBEDDER, input=[framed, framed[:2]])
    assert both.usage.prompt_tokens == 6
    assert cosine(both.data[0].embedding, text.data[0].embedding) > 0.99999


def test_what_is_no_embedding_is_a_400(client: openai.OpenAI, text_model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="embed"):
        client.embeddings.create(model=text_model, input="x")
    empties: list[Any] = [[], "", ["a cat", ""], [[]]]
    for empty in empties:
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=EMBEDDER, input=empty)
        assert str(caught.value.param).startswith("input")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=EMBEDDER, messages=[{"role": "user", "content": "Hello!"}]
        )
