"""Frames as a broken or hostile peer might send them, from a seed."""

import random
import struct
from collections.abc import Iterator
from typing import Any, Final, get_args

import msgspec

from daemon.wire import control as c
from daemon.wire import data as d

FORBIDDEN: Final = frozenset({"detach"})
"""What would rightly end the daemon."""

HUGE: Final = (0, 1 << 20, (1 << 20) + 1, (64 << 20) + 1, (1 << 31), (1 << 32) - 1)
NAMES: Final = ("mlxd/glimpse", "no/such-model", "", "../../etc/passwd", "a" * 300, "\x00", "é\n")
_encode: Final = msgspec.msgpack.Encoder().encode


def control_frames(rng: random.Random) -> Iterator[bytes]:
    """For the daemon's socket."""
    return _frames(rng, c.ControlRequest)


def data_frames(rng: random.Random) -> Iterator[bytes]:
    """For a worker's socket, as its clients would send them."""
    return _frames(rng, d.WorkRequest)


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def hello(rng: random.Random) -> bytes:
    """Mostly a good one; a daemon's only of generation 0, which every worker knows better."""
    if rng.random() < 0.85:
        return framed(_encode(c.Hello(client="fuzz", pid=1)))
    known: dict[str, Any] = {"type": "hello", "client": "fuzz", "pid": 1, "role": "client"}
    field = rng.choice([*known, "protocol_min", "protocol_max"])
    known[field] = "daemon" if field == "role" and rng.random() < 0.5 else _anything(rng)
    return framed(_encode({**known, "generation": 0}))


def _frames(rng: random.Random, union: Any) -> Iterator[bytes]:
    kinds = [kind for kind in get_args(union) if _tag(kind) not in FORBIDDEN]
    # A length that lies ends the connection: more of it would leave the rest unread.
    makers = {_mutated: 12, _cut: 4, _flipped: 4, _unknown: 4, _deep: 3, _noise: 4, _lying: 1}
    while True:
        (maker,) = rng.choices(list(makers), list(makers.values()))
        yield maker(rng, rng.choice(kinds))


def _tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def _mutated(rng: random.Random, kind: Any) -> bytes:
    """A request of a known type; fields are missing, odd, or of another type."""
    return framed(_encode(_request(rng, kind)))


def _cut(rng: random.Random, kind: Any) -> bytes:
    """A whole frame around a payload that ends too early."""
    payload = _encode(_request(rng, kind))
    return framed(payload[: rng.randrange(len(payload))])


def _flipped(rng: random.Random, kind: Any) -> bytes:
    payload = bytearray(_encode(_request(rng, kind)))
    for _ in range(rng.randint(1, 4)):
        payload[rng.randrange(len(payload))] = rng.randrange(256)
    # A flipped bit must not happen to spell what ends the daemon.
    return framed(bytes(payload).replace(b"detach", b"attach"))


def _unknown(rng: random.Random, kind: Any) -> bytes:
    tag = rng.choice([None, "", "frobnicate", _tag(kind).upper(), 7, ["status"]])
    return framed(_encode({**_request(rng, kind), "type": tag}))


def _deep(rng: random.Random, kind: Any) -> bytes:
    """Nested deeper than any parser should follow."""
    depth = rng.choice([10, 200, 2000, 20000])
    opening = rng.choice([b"\x91", b"\x81\xa1a"])
    nested = opening * depth + b"\xc0"
    if rng.random() < 0.5:
        return framed(nested)
    head = _encode({"type": _tag(kind), "id": _number(rng)})
    return framed(bytes([head[0] + 1]) + head[1:] + _encode("model") + nested)


def _noise(rng: random.Random, _kind: Any) -> bytes:
    return framed(rng.randbytes(rng.choice([0, 1, 7, 64, 4096])))


def _lying(rng: random.Random, kind: Any) -> bytes:
    """A length that is not the payload's."""
    return struct.pack(">I", rng.choice(HUGE)) + _encode(_request(rng, kind))


def _request(rng: random.Random, kind: Any) -> dict[str, Any]:
    """A few numbers stand for ids, so that they are reused and cancelled out of order."""
    request: dict[str, Any] = {"type": _tag(kind), "lease": "none"}
    for field in msgspec.structs.fields(kind):
        if field.name in {"id", "target"}:
            request[field.name] = rng.randrange(6)
        elif field.name in {"model", "name"}:
            request[field.name] = rng.choice(NAMES)
        elif rng.random() < 0.4:
            request[field.name] = _anything(rng)
    if "prompt" in {field.name for field in msgspec.structs.fields(kind)}:
        request |= {"prompt": rng.choice(["x", [5, 6], [1 << 40], "é" * 50]), "max_tokens": 2}
    if rng.random() < 0.3:
        request[rng.choice(list(request))] = _anything(rng)
    return request


def _number(rng: random.Random) -> int:
    return rng.choice([0, 1, 2, -1, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1])


def _anything(rng: random.Random) -> Any:
    return rng.choice(
        [
            None,
            True,
            _number(rng),
            rng.choice([0.5, -1.0, 1e308, float("inf"), float("nan")]),
            rng.choice(["", "x", "é" * 40, "\ud7ff", "a" * 2000]),
            rng.randbytes(8),
            [],
            [_number(rng), "x", None],
            {"type": "text", "text": "x"},
            {1: 2},
        ]
    )
