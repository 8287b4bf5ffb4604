"""The version that snapshots of the pool carry is that of the pool's shape."""

import hashlib
from typing import Any

import msgspec

from daemon.pool.state import STATE_VERSION, Pool

SHAPES = {7: "e726dbe2329d7e93"}
"""A digest of the pool's shape, by the version of its snapshots."""


def shape(schema: Any) -> Any:
    """A JSON schema without what is there to be read only."""
    match schema:
        case dict():
            return {key: shape(one) for key, one in schema.items() if key != "description"}
        case list():
            return [shape(one) for one in schema]
        case _:
            return schema


def test_a_pool_of_another_shape_has_another_version() -> None:
    encoded = msgspec.json.encode(shape(msgspec.json.schema(Pool)), order="deterministic")
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    assert SHAPES.get(STATE_VERSION) == digest, (
        "raise STATE_VERSION, and write down the new digest: a snapshot of the old shape, or of "
        "an evolve that gave another pool, must not be believed"
    )
