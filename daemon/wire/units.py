"""Sizes and times as people write and read them.

``G`` is 10⁹ bytes and ``Gi`` is 2³⁰, so that a size means the same in the configuration,
in error texts and in tables. Parsing is exact (decimal arithmetic, never floats);
formatting is for people and rounds.
"""

import re
from decimal import Decimal
from typing import Final

from daemon.wire.errors import Code, MlxdError

_BYTES: Final = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([KMGTP]?)(i?)(B?)\s*", re.ASCII)
_DURATION: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|min|h|d)?\s*", re.ASCII)
_PREFIXES: Final = " KMGTP"
_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}
_BYTES_MAX: Final = (1 << 63) - 1


def parse_bytes(text: str | int, *, field: str | None = None) -> int:
    """Bytes from "24G" (24·10⁹), "24Gi" (24·2³⁰), "512M", "1.5 GB" or a plain number.

    Prefixes K, M, G, T and P; a "B" at the end is allowed. Fractions of a byte are cut off.

    Raises:
        MlxdError: ``invalid_request`` for anything else, with ``field`` passed through.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return _bounded(text, text, field)
    match = _BYTES.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[3] and not match[2]):
        raise _bad_bytes(text, field)
    base = 1024 if match[3] else 1000
    return _bounded(int(Decimal(match[1]) * base ** _PREFIXES.index(match[2] or " ")), text, field)


def parse_duration_s(text: str | float, *, field: str | None = None) -> float:
    """Seconds from "300ms", "90s", "5m", "2h", "1d" or a plain number of seconds.

    Raises:
        MlxdError: ``invalid_request`` for anything else, with ``field`` passed through.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if 0 <= text < 10**12:
            return float(text)
        raise _bad_duration(text, field)
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _bad_duration(text, field)
    return float(Decimal(match[1]) * _SECONDS[match[2] or "s"])


def format_bytes(size_bytes: int) -> str:
    """A size for people, powers of ten, three figures: "0 B", "512 B", "1.20 GB", "24.0 GB"."""
    if size_bytes < 0:
        return "-" + format_bytes(-size_bytes)
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"


def format_duration_ms(duration_ms: int) -> str:
    """A length of time for people, two units at most: "840 ms", "12.3 s", "5m 20s", "3d 4h"."""
    if duration_ms < 0:
        return "-" + format_duration_ms(-duration_ms)
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    if duration_ms < 59_950:
        return f"{duration_ms / 1000:.1f} s"
    seconds = (duration_ms + 500) // 1000
    for name, size, small_name, small_size in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if seconds >= size:
            rest = seconds % size // small_size
            return f"{seconds // size}{name}" + (f" {rest}{small_name}" if rest else "")
    return f"{seconds}s"


def format_age_ms(at_ms: int | None, now_ms: int) -> str:
    """How long ago a moment was: "never", "now", "12s ago", "5m ago", "3d ago".

    A moment in the future reads as "now": ages are for past events, and clocks differ.
    """
    if at_ms is None:
        return "never"
    seconds = (now_ms - at_ms) // 1000
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds // size}{name} ago"
    return "now"


def format_until_ms(at_ms: int | None, now_ms: int) -> str:
    """When a deadline comes: "never" without one, "due" when past, else "in 5m"."""
    if at_ms is None:
        return "never"
    seconds = -(-(at_ms - now_ms) // 1000)
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            return f"in {seconds // size}{name}"
    return "due"


def _bounded(size_bytes: int, text: object, field: str | None) -> int:
    if 0 <= size_bytes <= _BYTES_MAX:
        return size_bytes
    raise _bad_bytes(text, field)


def _bad_bytes(text: object, field: str | None) -> MlxdError:
    hint = 'write a number of bytes, or a size such as "24G" (10⁹) or "24Gi" (2³⁰)'
    return MlxdError(
        Code.INVALID_REQUEST, f"{_quoted(text)} is not a size; {hint}", hint=hint, field=field
    )


def _bad_duration(text: object, field: str | None) -> MlxdError:
    hint = 'write seconds, or a time such as "90s", "5m" or "2h"'
    return MlxdError(
        Code.INVALID_REQUEST, f"{_quoted(text)} is not a duration; {hint}", hint=hint, field=field
    )


def _quoted(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 request", "2 requests", "1,200 entries"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
