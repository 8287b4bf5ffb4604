"""Lines: the format on disk, the chain, and records read back."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.eventlog.record import (
    GENESIS,
    RECORD_BYTES_MAX,
    LineDecoder,
    Record,
    chain_of,
    check_lines,
    explain,
    prev_of,
    seal,
    seq_of,
)
from daemon.pool.messages import Cause, DurableEvent, MemoryPressure
from tests.daemon.eventlog.samples import (
    CAUSE_VALUES,
    EVENT_VALUES,
    chain_by_hand,
    oversized_event,
)

SOFT = MemoryPressure(level="soft")
TICK = Cause(command="tick")


def test_the_format_is_the_one_that_was_promised() -> None:
    """Worked out by hand: printf '0…0{"seq":1,…}' | sha256sum."""
    record, line = seal(1, 1000, TICK, (SOFT,), GENESIS, opens_segment=True)
    assert line == (
        b'{"seq":1,"at_ms":1000,"cause":{"command":"tick"},'
        b'"events":[{"type":"memory.pressure","v":1,"level":"soft","trimmed":[]}],'
        b'"prev":"00000000000000000000000000000000",'
        b'"chain":"3f1ef94fa9a2f00ba0c92ead388990ad"}'
    )
    assert record.chain == "3f1ef94fa9a2f00ba0c92ead388990ad"


def sealed(count: int) -> list[bytes]:
    lines = []
    chain = GENESIS
    for seq in range(1, count + 1):
        record, line = seal(seq, seq, TICK, (SOFT,), chain, opens_segment=seq == 1)
        chain = record.chain
        lines.append(line)
    return lines


def test_the_parts_of_a_line_are_found_without_decoding() -> None:
    first, second = sealed(2)
    assert (seq_of(first), seq_of(second)) == (1, 2)
    assert prev_of(first) == GENESIS.encode()
    assert prev_of(second) is None
    assert chain_of(second) == chain_by_hand(json.loads(first)["chain"], second).encode()
    for junk in (b"", b"x", b'{"seq":', b'{"seq":x,', first[:-1], first[1:]):
        assert seq_of(junk) is None or chain_of(junk) is None


def test_a_chain_that_is_no_hash_is_none() -> None:
    first, _ = sealed(2)
    for junk in (b"\xb9", b"g", b"A"):
        assert chain_of(first[:-3] + junk + first[-2:]) is None
        assert prev_of(first.replace(b'"prev":"0', b'"prev":"' + junk)) is None


def test_good_lines_are_counted_up_to_the_first_bad_one() -> None:
    lines = sealed(5)
    last = json.loads(lines[-1])["chain"].encode()
    assert check_lines(lines, 0, GENESIS.encode()) == (5, last)
    for bad in range(5):
        broken = [*lines[:bad], lines[bad].replace(b"soft", b"hard"), *lines[bad + 1 :]]
        good, chain = check_lines(broken, 0, GENESIS.encode())
        assert good == bad
        assert chain.decode() == (json.loads(lines[bad - 1])["chain"] if bad else GENESIS)


def test_a_wrong_number_under_a_right_hash_is_found() -> None:
    """Only a fault of the writer makes such a line; it is reported all the same."""
    first, _ = sealed(2)
    chain = json.loads(first)["chain"]
    _, skipped = seal(3, 3, TICK, (SOFT,), chain, opens_segment=False)
    assert check_lines([first, skipped], 0, GENESIS.encode()) == (1, chain.encode())
    assert check_lines([skipped], 1, chain.encode()) == (0, chain.encode())


def test_what_is_wrong_is_explained() -> None:
    first, second = sealed(2)
    chain = chain_of(first) or b""
    assert explain(b"\0\0", 2, chain) == "this is no record"
    assert explain(first, 2, chain) == "record 1 is where record 2 belongs"
    assert "hash" in explain(second.replace(b"soft", b"hard"), 2, chain)


@settings(deadline=None)
@given(
    st.lists(st.tuples(CAUSE_VALUES, st.lists(EVENT_VALUES, min_size=1, max_size=3)), max_size=5)
)
def test_records_come_back_as_they_were(
    decisions: list[tuple[Cause, list[DurableEvent]]],
) -> None:
    decoder = LineDecoder()
    chain = GENESIS
    for seq, (cause, events) in enumerate(decisions, 1):
        record, line = seal(seq, seq, cause, tuple(events), chain, opens_segment=seq == 1)
        assert b"\n" not in line
        assert decoder.decode(line) == record
        assert (record.seq, record.cause, record.events) == (seq, cause, tuple(events))
        assert record.chain == chain_by_hand(chain, line)
        assert [raw["type"] for raw in json.loads(line)["events"]] == [
            event.__struct_config__.tag for event in events
        ]
        chain = record.chain


def test_a_record_that_no_watcher_could_be_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="over 1000000"):
        seal(1, 1, TICK, (oversized_event(RECORD_BYTES_MAX),), GENESIS, opens_segment=True)


def line_with(**changes: Any) -> bytes:
    raw: dict[str, Any] = {
        "seq": 1,
        "at_ms": 5,
        "cause": {"command": "tick"},
        "events": [{"type": "memory.pressure", "v": 1, "level": "soft"}],
        "chain": GENESIS,
    }
    return msgspec.json.encode(raw | changes)


def upgraded(event: dict[str, Any]) -> dict[str, Any]:
    return {"type": "memory.pressure", "v": 1, "level": event["how"]}


def test_old_events_are_upcast_before_they_are_decoded() -> None:
    decoder = LineDecoder({("memory.pressure", 0): upgraded})
    old = {"type": "memory.pressure", "v": 0, "how": "hard"}
    new = {"type": "memory.pressure", "v": 1, "level": "soft"}
    record = decoder.decode(line_with(events=[new, old]))
    assert record == Record(
        seq=1, at_ms=5, cause=TICK, events=(SOFT, MemoryPressure(level="hard")), chain=GENESIS
    )


def test_an_old_event_that_looks_new_is_upcast_too() -> None:
    """The meaning changed, not the shape: decoding it as it is would be wrong."""

    def swapped(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "v": 1, "level": {"soft": "hard", "hard": "soft"}[event["level"]]}

    old = {"type": "memory.pressure", "v": 0, "level": "soft"}
    decoder = LineDecoder({("memory.pressure", 0): swapped})
    assert decoder.decode(line_with(events=[old])).events == (MemoryPressure(level="hard"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"events": [{"type": "memory.pressure", "v": 2, "level": "soft"}]},
        {"events": [{"type": "memory.pressure", "v": 1, "level": "soft", "new": 1}]},
        {"events": [{"type": "memory.pleasure", "v": 1, "level": "soft"}]},
        {"events": [{"type": "memory.pressure", "v": 1, "level": "gentle"}]},
        {"events": [{"type": "memory.pressure", "level": "soft", "v": None}]},
        {"events": [7]},
        {"events": {}},
        {"new": 1},
        {"seq": "1"},
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        LineDecoder().decode(line_with(**changes))


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b"{", b"\xff", b'{"seq":1}'])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        LineDecoder().decode(line)
