"""Measurements that are kept, so that the next one shows what has changed."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from ctl.blocks import Cell, Column, Line, Page, Style, Table
from ctl.measuring import Figures
from daemon.wire.units import format_age_ms

KEPT_MAX: Final = 200
"""Lines of the file, of all models together; the oldest go."""
NOTEWORTHY: Final = 0.05
"""Smaller changes are noise between two runs on the same machine."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One ``mlxctl bench``; only those of the same setting are compared."""

    model: str
    at_ms: int
    version: str
    runs: int
    prompt_words: int
    tokens_max: int
    figures: tuple[Figures, ...]


_decoder: Final = msgspec.json.Decoder(Measurement)


def read_measurements(file: Path) -> list[Measurement]:
    """All that were kept, oldest first; lines that are none are passed over."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_decoder.decode(line))
        except msgspec.MsgspecError:
            continue  # of another version, or cut off: one measurement less
    return found


def keep(file: Path, measurement: Measurement) -> None:
    """Add one to the file, which stays bounded and is never half written.

    Raises:
        OSError: It cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = [*read_measurements(file), measurement][-KEPT_MAX:]
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    aside.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
    aside.replace(file)


def last_like(kept: list[Measurement], wanted: Measurement) -> Measurement | None:
    """The newest measurement of the same model in the same setting."""

    def setting(one: Measurement) -> tuple[str, int, int]:
        return one.model, one.prompt_words, one.tokens_max

    return next((one for one in reversed(kept) if setting(one) == setting(wanted)), None)


def bench_page(now: Measurement, before: Measurement | None) -> Page:
    """For people: figures, and against the last time what has changed."""
    first = now.figures[0]
    columns = (
        Column("STREAMS", right=True),
        Column("FIRST TOKEN", right=True),
        Column(""),
        Column("PREFILL TOK/S", right=True),
        Column("", spare=1),
        Column("DECODE TOK/S", right=True),
        Column(""),
        Column("TOGETHER", right=True),
        Column("", spare=2),
    )
    earlier = {one.streams: one for one in before.figures} if before else {}
    rows = tuple(_row(one, earlier.get(one.streams)) for one in now.figures)
    about = (
        f"{now.model}: {first.prompt_tokens:,} tokens in, {first.completion_tokens:,} out, "
        f"medians of {now.runs} runs"
    )
    past = "Run it again to see what has changed."
    if before is not None:
        when = format_age_ms(before.at_ms, now.at_ms)
        past = f"Changes are against {when}, mlxd {before.version}."
    return Line(about, "title"), Table(columns, rows), Line(), Line(past, "dim")


def bench_shape(now: Measurement, before: Measurement | None) -> dict[str, Any]:
    """The ``--json`` shape; ``before`` is null the first time."""
    return {"v": 1, **msgspec.to_builtins(now), "before": msgspec.to_builtins(before)}


def _row(now: Figures, before: Figures | None) -> tuple[Cell, ...]:
    cells = [Cell(str(now.streams))]
    for name in (
        "ttft_ms",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "total_tokens_per_s",
    ):
        time = name == "ttft_ms"
        value, old = getattr(now, name), getattr(before, name) if before else None
        cells += [Cell(_figure(value, time=time)), _change(value, old, less_is_better=time)]
    return tuple(cells)


def _figure(value: float | None, *, time: bool) -> str:
    if value is None:
        return "-"
    figure = f"{value:,.0f}" if time or value >= 100 else f"{value:.1f}"
    return f"{figure} ms" if time else figure


def _change(now: float | None, before: float | None, *, less_is_better: bool) -> Cell:
    if not now or not before:
        return Cell("")
    change = now / before - 1
    if abs(change) < NOTEWORTHY:
        return Cell("=", "dim")
    style: Style = "good" if (change < 0) == less_is_better else "bad"
    return Cell(f"{change:+.0%}", style)
