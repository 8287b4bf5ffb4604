"""The comparison: what happened, counted from the log, beside two simulations."""

import msgspec
import pytest

from daemon.eventlog.record import Record
from daemon.pool import messages as m
from daemon.pool.shapes import Waits
from daemon.pool.simulate import Rules
from daemon.simulation import compare, parse_policy
from daemon.wire.errors import Code, MlxdError
from tests.daemon.test_history import GB, LOAD, READY, STARTED, T0

ACQUIRED = m.LoadStarted(
    model=LOAD.model,
    worker="w1",
    claim_bytes=4 * GB,
    kv_tokens=1,
    rows_max=1,
    reason="acquire",
    asked_by=("mlx-bridge",),
)
USAGE = m.UsageRecorded(
    key="/a",
    model="a",
    window_ms=60_000,
    requests=3,
    prompt_tokens=1,
    completion_tokens=1,
    busy_ms=1,
    arrivals=((0, 1_000), (30_000, 1_000)),
    arrivals_dropped=1,
)
REFUSED = m.RequestRefused(
    key="/b", model="b", code="over_budget", client="c", message="too big", count=2
)
STEPS: list[tuple[int, m.DurableEvent]] = [
    (0, STARTED),
    (60_000, ACQUIRED),
    (61_000, READY),
    (121_000, USAGE),
    (130_000, REFUSED),
]
RECORDS = [
    Record(seq=n, at_ms=T0 + after_ms, cause=m.Cause(command="x"), events=(event,), chain="")
    for n, (after_ms, event) in enumerate(STEPS, 1)
]


def test_what_happened_and_what_would_have() -> None:
    told = compare(RECORDS, Rules(budget_bytes=GB), 0)

    happened = told.recorded
    assert (happened.requests, happened.refused, happened.loads) == (5, 2, 1)
    assert (happened.loading_ms, happened.peak_bytes, happened.waits) == (900, 4 * GB, None)
    assert (told.replayed.requests, told.replayed.loads) == (2, 1)
    assert told.replayed.waits == Waits(requests=1, total_ms=1_000, longest_ms=1_000)
    assert (told.simulated.loads, told.simulated.refused) == (0, 2)
    assert (told.since_at_ms, told.until_at_ms, told.dropped) == (T0, T0 + 130_000, 1)


def test_waits_are_added_up_once_daemons_count_them() -> None:
    waits = Waits(requests=2, total_ms=5_000, longest_ms=4_000)
    counted = msgspec.structs.replace(USAGE, waits=waits)
    more = [
        Record(seq=n, at_ms=T0 + 140_000, cause=m.Cause(command="x"), events=(event,), chain="")
        for n, event in ((6, counted), (7, USAGE), (8, counted))
    ]

    told = compare([*RECORDS, *more], Rules(), 0)

    assert told.recorded.waits == Waits(requests=4, total_ms=10_000, longest_ms=4_000)


def test_since() -> None:
    told = compare(RECORDS, Rules(), T0 + 70_000)

    assert (told.recorded.loads, told.recorded.requests) == (0, 5)
    assert (told.replayed.loads, told.replayed.requests) == (0, 1)
    with pytest.raises(MlxdError, match="nothing since then"):
        compare(RECORDS, Rules(), T0 + 130_001)
    with pytest.raises(MlxdError, match="nothing since then"):
        compare([], Rules(), 0)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("lru", Rules()),
        ("largest-first", Rules(policy="largest_first")),
        ("ttl=10m", Rules(ttl_ms=600_000)),
        ("lru,lru", Rules()),
        ("largest-first, ttl=90s", Rules(policy="largest_first", ttl_ms=90_000)),
    ],
)
def test_policies(text: str, rules: Rules) -> None:
    assert parse_policy(text) == rules


@pytest.mark.parametrize("text", ["", "fifo", "lru=1", "ttl", "ttl=", "ttl=soon", "lru,,"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(MlxdError) as caught:
        parse_policy(text)
    assert caught.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lru,largest-first", "'lru' and 'largest-first' contradict each other"),
        ("ttl=1s, lru,ttl=2s", "'ttl=1s' and 'ttl=2s' contradict each other"),
    ],
)
def test_policies_that_contradict_each_other(text: str, said: str) -> None:
    with pytest.raises(MlxdError, match=said) as caught:
        parse_policy(text)
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "policy")
