"""Moments as people write them: "2h" ago, a clock time, a date, a full timestamp. Pure."""

import re
from datetime import UTC, datetime, tzinfo
from typing import Final

from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import parse_duration_s

_CLOCK: Final = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)
FIRST_YEAR: Final = 1970
"""No log is older; timestamp() fails near the calendar's own beginning."""
_UNIX_MS: Final = re.compile(r"\d{12,14}", re.ASCII)
HINT: Final = (
    'write a time ago such as "90s", "2h" or "7d", a time of today such as "14:30" or "14:30:05", '
    'a date and time such as "2026-09-21 14:30", or Unix milliseconds'
)


def parse_moment_ms(text: str, now_ms: int, zone: tzinfo | None = None) -> int:
    """The moment that ``text`` means, as Unix milliseconds; 0 for all before 1970.

    Args:
        now_ms: What "ago" and "today" count from.
        zone: Of times that name none; None is the local one.

    Raises:
        MlxdError: ``invalid_request`` if it means none.
    """
    text = text.strip()
    try:
        return max(0, _parsed_ms(text, now_ms, zone))
    except (ValueError, MlxdError) as error:
        raise MlxdError(
            Code.INVALID_REQUEST, f"{text!r} is not a moment; {HINT}", hint=HINT
        ) from error


def _parsed_ms(text: str, now_ms: int, zone: tzinfo | None) -> int:
    if _UNIX_MS.fullmatch(text):
        return int(text)
    if _CLOCK.fullmatch(text):
        today = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).date()
        return _moment_ms(f"{today.isoformat()} {text.zfill(len(text.split(':')) * 3 - 1)}", zone)
    if text[:1].isdigit() and "-" not in text and not text.isdigit():
        return now_ms - round(parse_duration_s(text) * 1000)
    return _moment_ms(text, zone)


def _moment_ms(text: str, zone: tzinfo | None) -> int:
    at = datetime.fromisoformat(text)
    if at.year < FIRST_YEAR:
        return 0
    if at.tzinfo is None and zone is not None:
        at = at.replace(tzinfo=zone)  # without one it is local time to timestamp()
    return round(at.timestamp() * 1000)
