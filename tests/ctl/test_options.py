"""Options that several verbs share."""

import click
import pytest

from ctl.options import DURATION, IDLE_TIME, NEVER, milliseconds


def test_durations() -> None:
    assert [DURATION.convert(text, None, None) for text in ("90s", "10m", "1.5", "250ms")] == [
        90.0,
        600.0,
        1.5,
        0.25,
    ]


def test_no_duration() -> None:
    with pytest.raises(click.BadParameter, match="'soon' is not a duration"):
        DURATION.convert("soon", None, None)


def test_an_idle_time_is_never_or_a_millisecond_at_least() -> None:
    given = ("never", "0", "1ms", "10m")
    assert [IDLE_TIME.convert(text, None, None) for text in given] == [NEVER, 0.0, 0.001, 600.0]
    with pytest.raises(click.BadParameter, match=r"'0\.5ms' is less than 1 ms, the shortest time"):
        IDLE_TIME.convert("0.5ms", None, None)


def test_milliseconds() -> None:
    assert (milliseconds(None), milliseconds(1.5), milliseconds(0.0004)) == (None, 1500, 0)
