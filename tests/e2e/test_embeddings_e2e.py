"""Embeddings over HTTP, of a real model."""

import base64
import math
import struct

import openai
import pytest

from tests.e2e.service import EMBEDDER

pytestmark = [pytest.mark.e2e, pytest.mark.e2e_embeddings]


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
    assert floats == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_what_is_no_embedding_is_a_400(client: openai.OpenAI, text_model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="embed"):
        client.embeddings.create(model=text_model, input="x")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=EMBEDDER, input=[])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=EMBEDDER, messages=[{"role": "user", "content": "Hello!"}]
        )
