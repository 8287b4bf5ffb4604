"""Moments as people write them."""

import time
from datetime import timedelta, timezone

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.moments import parse_moment_ms

NOW_MS = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC"""
ZONE = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2h", NOW_MS - 7_200_000),
        ("7d", NOW_MS - 7 * 86_400_000),
        ("90s", NOW_MS - 90_000),
        ("1.5h", NOW_MS - 5_400_000),
        ("14:13", 1_789_992_780_000),
        ("9:05:01", 1_789_974_301_000),
        ("2026-09-21", 1_789_941_600_000),
        ("2026-09-21 14:13:20", 1_789_992_800_000),
        ("2026-09-21T14:13:20Z", NOW_MS),
        ("2026-09-21T14:13:20+02:00", 1_789_992_800_000),
        ("1790000000000", NOW_MS),
        (" 2h ", NOW_MS - 7_200_000),
    ],
)
def test_moments(text: str, at_ms: int) -> None:
    assert parse_moment_ms(text, NOW_MS, ZONE) == at_ms


NONE = ["", "soon", "25:00", "2026-13-01", "-2h", "90", "2 fortnights", "2h30m", "1e3"]


@pytest.mark.parametrize("text", [*NONE, "23:41:00.5"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(MlxdError) as caught:
        parse_moment_ms(text, NOW_MS, ZONE)
    assert caught.value.code is Code.INVALID_REQUEST
    assert str(caught.value).startswith(f"{text!r} is not a moment; write a time ago such as ")


@pytest.mark.parametrize("zone", [ZONE, timezone(timedelta(hours=-12)), None])
@pytest.mark.parametrize("text", ["0001-01-01", "1969-07-20", "999999999999d"])
def test_before_all_logs_is_the_beginning_of_time(text: str, zone: timezone | None) -> None:
    assert parse_moment_ms(text, NOW_MS, zone) == 0


@pytest.mark.parametrize("east", [14, 0, -12])
def test_the_last_day_of_the_calendar(east: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", f"X{-east}")
    time.tzset()
    try:
        for text in ("9999-12-31", "9999-12-31 23:59:59"):
            assert parse_moment_ms(text, NOW_MS) > NOW_MS
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_a_zone_it_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert parse_moment_ms("2026-09-21 16:13:20", NOW_MS) == NOW_MS
        assert parse_moment_ms("16:13:20", NOW_MS) == NOW_MS
    finally:
        monkeypatch.undo()
        time.tzset()
