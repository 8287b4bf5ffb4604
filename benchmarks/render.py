"""Tables for people: one a topic, as wide as they need to be."""

from collections.abc import Sequence

from benchmarks.figures import Row, Spread, Table, Target

_HEAD = ("what", "ours", "beside", "theirs", "ratio", "target", "")


def number(value: float) -> str:
    """Three digits that count, and no more of them than that."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def spread_text(figure: Spread, unit: str = "") -> str:
    """``412 tok/s (398..431)``; a single sample has no range."""
    text = f"{number(figure.median)} {unit}".rstrip()
    if figure.samples == 1:
        return text
    return f"{text} ({number(figure.low)}..{number(figure.high)})"


def target_text(target: Target, unit: str) -> str:
    """``>= 0.97``, in the row's unit where ours is judged."""
    bounds = []
    if target.at_least is not None:
        bounds.append(f">= {number(target.at_least)}")
    if target.at_most is not None:
        bounds.append(f"<= {number(target.at_most)}")
    return " ".join([*bounds, unit if target.of == "ours" else ""]).rstrip()


def summary_text(tables: Sequence[Table]) -> str:
    """How many targets were reached, and each that was not."""
    judged = [(table, row) for table in tables for row in table.rows if row.target is not None]
    short = [(table, row) for table, row in judged if row.verdict == "short"]
    lines = [f"{len(judged) - len(short)} of {len(judged)} targets reached"]
    for table, row in short:
        assert row.target is not None
        found = row.ours if row.target.of == "ours" else row.ratio
        assert found is not None
        unit = row.unit if row.target.of == "ours" else ""
        beside = f" ÷ {row.beside}" if row.target.of == "ratio" else ""
        reached = f"{spread_text(found, unit)}, target {target_text(row.target, row.unit)}"
        lines.append(f"  short  {table.topic}: {row.what}{beside}: {reached}")
    return "\n".join(lines)


def table_text(table: Table) -> str:
    """A topic's title, its rows in columns, and its notes."""
    cells = [_HEAD, *(cells_of(row) for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    lines = [f"{table.topic}: {table.title}"]
    for row, source in zip(cells, (None, *table.rows), strict=True):
        lines.append("  " + _line(row, widths))
        if source is not None and source.note:
            lines.append(f"      {source.note}")
    lines += [f"  * {note}" for note in table.notes]
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def cells_of(row: Row) -> tuple[str, ...]:
    """A row's figures as text, under the headings of both the page and the terminal."""
    return (
        row.what,
        spread_text(row.ours, row.unit),
        row.beside,
        "" if row.theirs is None else spread_text(row.theirs, row.unit),
        "" if row.ratio is None else spread_text(row.ratio),
        "" if row.target is None else target_text(row.target, row.unit),
        row.verdict or "",
    )
