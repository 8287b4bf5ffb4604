"""Bounds of an answer's numbers, and that HTTP and mlxctl have the same names for them."""

import msgspec
import pytest

from ctl.conversation import SETTINGS
from daemon.wire.bounds import NUMBERS, out_of_bounds
from daemon.wire.errors import MlxdError
from http_bridge.decode import decode_body
from http_bridge.openai_schema import ChatRequest

_chat: msgspec.json.Decoder[ChatRequest] = msgspec.json.Decoder(ChatRequest)
HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", 0, None),
        ("temperature", 2.0, None),
        ("temperature", 2.1, "expected `float` <= 2.0"),
        ("temperature", float("nan"), "expected `float` >= 0.0"),
        ("top_p", 0, "expected `float` > 0.0"),
        ("top_k", 0, None),
        ("min_p", 1.5, "expected `float` <= 1.0"),
        ("repetition_penalty", 11, "expected `float` <= 10.0"),
        ("presence_penalty", -2, None),
        ("frequency_penalty", 2.5, "expected `float` <= 2.0"),
        ("seed", 2**63 - 1, None),
        ("seed", -1, "expected `int` >= 0"),
        ("max_tokens", 0, "expected `int` >= 1"),
    ],
)
def test_bounds(name: str, value: float, said: str | None) -> None:
    assert out_of_bounds(name, value) == said


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_http_and_mlxctl_refuse_in_the_same_words(name: str) -> None:
    assert name in SETTINGS
    body = msgspec.json.encode({"model": "m", "messages": [HELLO], name: -3})
    with pytest.raises(MlxdError) as caught:
        decode_body(_chat, body)
    assert caught.value.fault.message == f"{name}: {out_of_bounds(name, -3)}"
