"""Usage records added up, by hand-made sums."""

from datetime import UTC, timedelta, timezone
from typing import Any, Literal

import pytest

from ctl.plain import plain
from ctl.usage import UsageSum
from daemon.wire.records import Record
from tests.ctl.views import NOW_MS

DAY_MS = 86_400_000


def used(before_ms: int, model: str, requests: int) -> Record:
    """Of ``b`` by an older daemon, which did not record waits."""
    event: dict[str, Any] = {
        "type": "usage.recorded",
        "model": model,
        "requests": requests,
        "prompt_tokens": 1_000 * requests,
        "completion_tokens": 10 * requests,
        "busy_ms": 2_000 * requests,
    }
    if model == "a":
        waits = {"requests": requests // 2, "total_ms": 500 * requests, "longest_ms": 90 * requests}
        event["waits"] = waits
    return Record(seq=1, at_ms=NOW_MS - before_ms, events=(event, {"type": "daemon.settled"}))


RECORDS = (
    used(2 * DAY_MS, "a", 1),
    used(DAY_MS, "a", 2),
    used(DAY_MS - 1, "b", 4),
    used(0, "a", 8),
    used(0, "a", 16),
)


def added(by: Literal["day", "model"] | None, zone: timezone = UTC) -> UsageSum:
    usage = UsageSum(by, zone)
    for record in RECORDS:
        usage.take(record)
    return usage


def test_a_row_a_model_and_day() -> None:
    assert plain(added(None).page()) == (
        "DAY         MODEL  REQUESTS    READ  WRITTEN    BUSY  WAITED  LONGEST WAIT\n"
        "2026-09-19  a             1   1,000       10   2.0 s       0             -\n"
        "2026-09-20  a             2   2,000       20   4.0 s       1        180 ms\n"
        "2026-09-20  b             4   4,000       40   8.0 s       0             -\n"
        "2026-09-21  a            24  24,000      240  48.0 s      12         1.4 s\n"
        "total                    31  31,000      310   1m 2s      13         1.4 s\n"
    )


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("day", [("2026-09-19", 1), ("2026-09-20", 6), ("2026-09-21", 24)]),
        ("model", [("a", 27), ("b", 4)]),
    ],
)
def test_by(by: Literal["day", "model"], rows: list[tuple[str, int]]) -> None:
    shape = added(by).shape(None)
    page = plain(added(by).page()).splitlines()

    assert [(row[by], row["requests"]) for row in shape["rows"]] == rows
    assert [tuple(line.split()[:2]) for line in page[1:]] == [
        *((place, str(count)) for place, count in rows),
        ("total", "31"),
    ]
    assert shape["total"] == {
        "requests": 31,
        "prompt_tokens": 31_000,
        "completion_tokens": 310,
        "busy_ms": 62_000,
        "waited": 13,
        "waited_ms": 13_500,
        "waited_max_ms": 1_440,
    }


def test_days_are_those_of_the_time_zone() -> None:
    ahead = added("day", timezone(timedelta(hours=12))).shape(NOW_MS)

    assert [row["day"] for row in ahead["rows"]] == ["2026-09-20", "2026-09-21", "2026-09-22"]
    assert ahead["since_at_ms"] == NOW_MS


def test_nothing_was_used() -> None:
    assert plain(UsageSum(None).page()) == "Nothing was used, as far as the log goes.\n"
