"""Measurements that are kept and compared."""

from pathlib import Path

import msgspec

from ctl.bench import KEPT_MAX, Measurement, bench_page, keep, last_like, read_measurements
from ctl.measuring import Figures
from ctl.plain import plain

ONE = Figures(
    streams=1,
    ttft_ms=200,
    prefill_tokens_per_s=2500.0,
    decode_tokens_per_s=50.0,
    total_tokens_per_s=50.0,
    prompt_tokens=512,
    completion_tokens=128,
)
THEN = Measurement(
    model="m",
    at_ms=1_790_000_000_000,
    version="0.1.0",
    runs=3,
    prompt_words=512,
    tokens_max=128,
    figures=(ONE,),
)


def test_the_first_time_there_is_nothing_to_compare_with() -> None:
    assert plain(bench_page(THEN, None)) == (
        "m: 512 tokens in, 128 out, medians of 3 runs\n"
        "STREAMS  FIRST TOKEN    PREFILL TOK/S    DECODE TOK/S    TOGETHER\n"
        "      1       200 ms            2,500            50.0        50.0\n"
        "\n"
        "Run it again to see what has changed.\n"
    )


def test_changes_stand_beside_the_figures() -> None:
    faster = msgspec.structs.replace(
        ONE, ttft_ms=150, prefill_tokens_per_s=2550.0, decode_tokens_per_s=40.0
    )
    four = msgspec.structs.replace(ONE, streams=4, prefill_tokens_per_s=None)
    now = msgspec.structs.replace(THEN, at_ms=THEN.at_ms + 7_200_000, figures=(faster, four))

    assert plain(bench_page(now, THEN)).splitlines()[1:] == [
        "STREAMS  FIRST TOKEN        PREFILL TOK/S     DECODE TOK/S        TOGETHER",
        "      1       150 ms  -25%          2,550  =          40.0  -20%      50.0  =",
        "      4       200 ms                    -             50.0            50.0",
        "",
        "Changes are against 2h ago, mlxd 0.1.0.",
    ]


def test_only_the_same_setting_is_compared() -> None:
    longer = msgspec.structs.replace(THEN, at_ms=2, prompt_words=2000)
    other = msgspec.structs.replace(THEN, at_ms=3, model="n")
    newer = msgspec.structs.replace(THEN, at_ms=4)

    assert last_like([THEN, longer, other], THEN) == THEN
    assert last_like([THEN, newer, longer, other], THEN) == newer
    assert last_like([longer, other], THEN) is None


def test_what_is_kept_is_bounded_and_survives_odd_lines(tmp_path: Path) -> None:
    file = tmp_path / "state" / "bench.jsonl"
    keep(file, THEN)
    file.write_bytes(b"no json\n" + file.read_bytes() + b'{"v": "of tomorrow"}\n')
    assert read_measurements(file) == [THEN]
    for at_ms in range(KEPT_MAX + 5):
        keep(file, msgspec.structs.replace(THEN, at_ms=at_ms))

    kept = read_measurements(file)
    assert [one.at_ms for one in kept] == list(range(5, KEPT_MAX + 5))
    assert [one.name for one in file.parent.iterdir()] == ["bench.jsonl"]
