"""msgspec's messages as OpenAI's parameters."""

import json
import re
from typing import Annotated, Any

import msgspec
import pytest

from daemon.wire.errors import MlxdError
from http_bridge import decode
from http_bridge.decode import check_portable, decode_body


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: list[Inner] = []
    table: dict[Annotated[int, msgspec.Meta(ge=0)], float] = {}


decoder = msgspec.json.Decoder(Outer)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "name", "name: required, and missing"),
        (
            {"name": "a", "b": 1},
            "b",
            "b: unknown or unsupported; it would have no effect, so leave it out",
        ),
        ({"name": []}, "name", "name: expected a string, got a list"),
        ({"name": "a", "inner": [{}, {"size": "x"}]}, "inner[1].size", None),
        ({"name": "a", "inner": [{"big": 1}]}, "inner[0].big", None),
        ({"name": "a", "table": {"x": 1}}, "table", None),
        ({"name": "a", "table": {"1": "x"}}, "table", None),
        ([], None, "the body: expected an object, got a list"),
    ],
)
def test_the_path_is_named(body: Any, field: str | None, message: str | None) -> None:
    with pytest.raises(MlxdError) as caught:
        decode_body(decoder, json.dumps(body).encode())
    assert caught.value.fault.field == field
    if message is not None:
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"b": null, "name": null}', "name: expected a string"),
        (b'{"b": null, "name": {}}', "name: expected a string, got an object"),
        (b'{"name": "a", "table": {"1": 1e400}, "b": null}', "number out of range"),
        (b'{"b": null, "name": "a", "inner": [{"size": []}]}', "inner[0].size: expected"),
    ],
)
def test_mistakes_beside_nulls_are_said_as_without_them(body: bytes, message: str) -> None:
    with pytest.raises(MlxdError, match=re.escape(message)):
        decode_body(decoder, body)


def test_nulls_are_taken_out_of_bodies_that_are_no_larger_than_streams_can_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b'{"name": "a", "inner": [{}, {}, {}], "b": null}'
    assert decode_body(decoder, body) == Outer("a", [Inner()] * 3)
    monkeypatch.setattr(decode, "_MEMBERS_MAX", 3)
    with pytest.raises(MlxdError, match="b: unknown or unsupported"):
        decode_body(decoder, body)


def test_what_fits_is_decoded() -> None:
    assert decode_body(decoder, b'{"name": "a", "table": {"1": 2}}') == Outer("a", [], {1: 2.0})


def test_numbers_that_the_socket_cannot_carry() -> None:
    check_portable({"a": [1 << 63, -1, "x" * 1000]}, "tools")
    with pytest.raises(MlxdError, match="more than 64 bits") as caught:
        check_portable({"a": [1 << 64]}, "tools")
    assert caught.value.fault.field == "tools"


@pytest.mark.parametrize(
    "text",
    [
        r"a\ud83d", r"\ud83dxx", r"\uDC00x", r"\ud83d\u0041", r"\ud83d\ud83d\ude00", r"\\\ud83d",
        r"\ud83d\n\ude00",
    ],
)  # fmt: skip
def test_half_of_a_surrogate_pair_is_said_to_be_one(text: str) -> None:
    with pytest.raises(MlxdError, match="half of a surrogate pair"):
        decode_body(decoder, b'{"name": "%s"}' % text.encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "\\ud83d\\ude00"',
        rb'{"name": "\\\\ud83d"',
        b'{"name": "\xff\\ud83d\\ude00"}',
        b"{",
        b"",
    ],
)
def test_other_mistakes_are_not(body: bytes) -> None:
    with pytest.raises(MlxdError, match="not valid JSON") as caught:
        decode_body(decoder, body)
    assert "surrogate" not in str(caught.value)


def test_a_byte_order_mark_is_skipped() -> None:
    assert decode_body(decoder, b'\xef\xbb\xbf{"name": "a"}') == Outer("a")
    with pytest.raises(MlxdError, match="not valid JSON"):
        decode_body(decoder, b'\xef\xbb\xbf\xef\xbb\xbf{"name": "a"}')
