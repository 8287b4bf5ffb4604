import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import (
    counted,
    format_age_ms,
    format_bytes,
    format_duration_ms,
    format_until_ms,
    parse_bytes,
    parse_duration_s,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24G", 24_000_000_000),
        ("24Gi", 25_769_803_776),
        ("24 GiB", 25_769_803_776),
        ("512M", 512_000_000),
        ("1.5GB", 1_500_000_000),
        ("0.1K", 100),
        ("7", 7),
        ("7B", 7),
        (" 2T ", 2_000_000_000_000),
        (123, 123),
        (0, 0),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "24g",
        "24X",
        "-1",
        "1e9",
        "1 2",
        "24Gib",
        "7i",
        "٣G",
        "9999999999P",
        True,
        -1,
        1 << 63,
    ],
)
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(MlxdError) as caught:
        parse_bytes(text, field="pool.memory")
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "pool.memory"
    assert '"24G"' in caught.value.fault.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("2h", 7200), ("1d", 86_400), ("300ms", 0.3), ("1.5 h", 5400), ("9", 9),
     ("2min", 120), ("0s", 0), (300, 300), (0.5, 0.5)],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5x", "-5m", "1h30m", float("nan"), float("inf"), -1, True]
)
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(MlxdError, match="not a duration"):
        parse_duration_s(text)


@given(
    st.integers(min_value=0, max_value=10**6),
    st.sampled_from(["K", "M", "G", "T"]),
    st.sampled_from(["", "i"]),
    st.sampled_from(["", "B"]),
)
def test_prefixes_multiply(number: int, prefix: str, binary: str, unit: str) -> None:
    factor = (1024 if binary else 1000) ** {"K": 1, "M": 2, "G": 3, "T": 4}[prefix]
    assert parse_bytes(f"{number}{prefix}{binary}{unit}") == number * factor


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        size = parse_bytes(text)
    except MlxdError:
        return
    assert 0 <= size < 1 << 63


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (41_234_567_890, "41.2 GB"),
        (-1_500, "-1.50 kB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(min_value=0, max_value=10**17))
def test_a_size_for_people_can_be_read_back(size: int) -> None:
    shown = format_bytes(size).replace("k", "K")
    assert abs(parse_bytes(shown) - size) <= max(size * 0.006, 0)


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0 ms"),
        (840, "840 ms"),
        (12_340, "12.3 s"),
        (59_960, "1m"),
        (320_000, "5m 20s"),
        (3_599_600, "1h"),
        (7_260_000, "2h 1m"),
        (273_600_000, "3d 4h"),
        (-840, "-840 ms"),
    ],
)
def test_durations_for_people(duration_ms: int, text: str) -> None:
    assert format_duration_ms(duration_ms) == text


@pytest.mark.parametrize(
    ("at_ms", "age", "until"),
    [
        (None, "never", "never"),
        (100_000, "now", "due"),
        (100_001, "now", "in 1s"),
        (99_001, "now", "due"),
        (99_000, "1s ago", "due"),
        (400_000, "now", "in 5m"),
        (-7_100_000, "2h ago", "due"),
        (172_900_000, "now", "in 2d"),
    ],
)
def test_moments_for_people(at_ms: int | None, age: str, until: str) -> None:
    assert format_age_ms(at_ms, 100_000) == age
    assert format_until_ms(at_ms, 100_000) == until


def test_counted() -> None:
    assert [counted(n, "request") for n in (0, 1, 1200)] == [
        "0 requests",
        "1 request",
        "1,200 requests",
    ]
    assert counted(2, "entry", "entries") == "2 entries"
