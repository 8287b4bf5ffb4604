"""Every version that was ever written can be read: the fixtures are those lines."""

import json
from typing import Any

import msgspec
import pytest

from daemon.eventlog.record import GENESIS, LineDecoder, check_lines
from daemon.eventlog.upcast import UPCASTERS, current_versions, upcast
from tests.daemon.eventlog.samples import EVENT_TYPES, FIXTURES, chain_by_hand, fixture_of

VERSIONS = current_versions()
WRITTEN = [
    (str(kind.__struct_config__.tag), version)
    for kind in EVENT_TYPES
    for version in range(1, VERSIONS[str(kind.__struct_config__.tag)] + 1)
]


@pytest.mark.parametrize(("tag", "version"), WRITTEN)
def test_every_version_of_every_event_has_a_fixture_that_reads(tag: str, version: int) -> None:
    path = fixture_of(tag, version)
    assert path.exists(), "run: python -m tests.daemon.eventlog.samples"
    (line,) = path.read_bytes().splitlines()
    record = LineDecoder().decode(line)
    (raw,) = json.loads(line)["events"]
    assert (raw["type"], raw["v"]) == (tag, version)
    (event,) = record.events
    if version == VERSIONS[tag]:
        assert is_kept(raw, json.loads(msgspec.json.encode(event)))
    assert record.chain == chain_by_hand(GENESIS, line)
    assert check_lines([line], 0, GENESIS.encode()) == (1, record.chain.encode())


def is_kept(written: Any, read: Any) -> bool:
    """Whether all that was written is there; what came later may stand beside it, at any depth."""
    if isinstance(written, dict):
        return all(name in read and is_kept(value, read[name]) for name, value in written.items())
    if isinstance(written, list):
        return len(written) == len(read) and all(map(is_kept, written, read))
    return bool(written == read)


def test_no_fixture_is_of_an_event_that_is_forgotten() -> None:
    """An event type that is no longer written must stay readable."""
    there = {(path.stem, int(path.parent.name[1:])) for path in FIXTURES.glob("v*/*.jsonl")}
    assert there == set(WRITTEN) | set(UPCASTERS)


def test_steps_lead_from_version_to_version_and_may_rename() -> None:
    def first(event: dict[str, Any]) -> dict[str, Any]:
        return {"type": "new", "v": 1, "name": event["called"]}

    def second(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "v": 2, "size": 0}

    steps = {("old", 1): first, ("new", 1): second}
    old = {"type": "old", "v": 1, "called": "x"}
    assert upcast(old, {"new": 2}, steps) == {"type": "new", "v": 2, "name": "x", "size": 0}
    assert old == {"type": "old", "v": 1, "called": "x"}


def test_a_step_that_leads_nowhere_is_an_error_and_no_loop() -> None:
    with pytest.raises(ValueError, match="leads nowhere"):
        upcast({"type": "x", "v": 1}, {"x": 2}, {("x", 1): dict})


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "x", "v": 3}, "version 3, and only 2"),
        ({"type": "x", "v": 1}, "version 1, and only 2"),
        ({"type": "y", "v": 1}, "unknown event"),
        ({"type": "x"}, "without"),
        ({"v": 1}, "without"),
        ({"type": 5, "v": 1}, "without"),
    ],
)
def test_what_cannot_be_upcast_is_refused(event: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upcast(event, {"x": 2}, {})
