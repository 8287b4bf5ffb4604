"""Embeddings: inputs of every form, vectors exact in both encodings."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from http_bridge.embeddings import embeddings_body, floats, read_embeddings
from http_bridge.naming import Need

GRANTED = c.Granted(
    id=1, lease="l", model="m", worker="1", socket="s", kind="embeddings", capabilities=(),
    context_tokens=1,
)  # fmt: skip


def read(**fields: Any) -> d.Embed:
    call, _ = read_embeddings(json.dumps({"model": "m", **fields}).encode(), "embd-1")
    assert call.needs == (Need(capability="embeddings"),)
    made = call.make(GRANTED)
    assert isinstance(made, d.Embed)
    return made


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("cat", ("cat",)),
        (["cat", "dog"], ("cat", "dog")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["cat", [3]], ("cat", (3,))),
    ],
)
def test_inputs(given: Any, taken: Any) -> None:
    assert read(input=given) == d.Embed(lease="l", request="embd-1", inputs=taken)


def test_what_else_is_honoured() -> None:
    assert read(input="x", dimensions=8, user="u").dimensions == 8
    body = b'{"model": "m", "input": "x", "encoding_format": "base64", "ttl": 3}'
    call, as_base64 = read_embeddings(body, "embd-1")
    assert (as_base64, call.ttl_s) == (True, 3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [-1]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "truncate": True}, "truncate"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.fault.field == param


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9))
def test_vectors_are_exact_in_both_encodings(numbers: list[float]) -> None:
    vector = struct.pack(f"<{len(numbers)}f", *numbers)
    usage = d.Usage(prompt_tokens=4, completion_tokens=0)
    plain = json.loads(embeddings_body("m", [vector, vector], usage, as_base64=False))
    CreateEmbeddingResponse.model_validate(plain)
    assert [item["index"] for item in plain["data"]] == [0, 1]
    assert plain["data"][1]["embedding"] == numbers == list(floats(vector))
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    packed = json.loads(embeddings_body("m", [vector], usage, as_base64=True))
    assert base64.b64decode(packed["data"][0]["embedding"]) == vector
