"""Blocks on a terminal, drawn by rich. Imported only when somebody is looking."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from ctl.blocks import Block, Line, Meter, Style, Table, harmless

RICH_STYLE: Final[dict[Style, str]] = {
    "plain": "",
    "title": "bold",
    "dim": "dim",
    "good": "green",
    "busy": "cyan",
    "warn": "yellow",
    "bad": "bold red",
    "chosen": "reverse",
}
_METER_WIDTH: Final = 30
_GAP: Final = 2


def console(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """A console on ``stream`` that honours NO_COLOR (https://no-color.org)."""
    return Console(file=stream, no_color=bool(environ.get("NO_COLOR")), highlight=False)


def draw(target: Console, blocks: Sequence[Block]) -> None:
    """Print the page."""
    for block in blocks:
        target.print(renderable(block, target.width))


def renderable(block: Block, width: int) -> RenderableType:
    """One block as rich draws it on a terminal of ``width`` columns."""
    match block:
        case Line():
            return Text(_hung(harmless(block.text), width), style=RICH_STYLE[block.style])
        case Meter():
            return _meter(block)
        case Table():
            return _table(narrowed(block, width))


def _hung(text: str, width: int) -> str:
    """An indented paragraph keeps its indent where it is broken."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    if not indent or "\n" in text or len(text) <= width:
        return text
    return fill(text, width, subsequent_indent=indent, break_on_hyphens=False)


def narrowed(table: Table, width: int) -> Table:
    """The table without the columns that can be spared where it would be too wide."""
    kept = list(range(len(table.columns)))
    widths = [
        max([len(column.title), *(len(row[at].text) for row in table.rows)]) + _GAP
        for at, column in enumerate(table.columns)
    ]
    while sum(widths[at] for at in kept) - _GAP > width:
        last = max(kept, key=lambda at: table.columns[at].spare)
        if not table.columns[last].spare:
            break
        kept.remove(last)
    return Table(
        tuple(table.columns[at] for at in kept),
        [tuple(row[at] for at in kept) for row in table.rows],
        table.header,
    )


def _table(table: Table) -> RichTable:
    drawn = RichTable(
        box=None,
        show_header=table.header,
        header_style="dim",
        padding=(0, _GAP, 0, 0),
        pad_edge=False,
        expand=any(column.grow for column in table.columns),
    )
    for column in table.columns:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.right,
            width=column.width,
            ratio=1 if column.grow else None,
        )
    for row in table.rows:
        chosen = bool(row) and row[0].style == "chosen"  # the gaps between the cells, too
        drawn.add_row(
            *(Text(harmless(cell.text), style=RICH_STYLE[cell.style]) for cell in row),
            style=RICH_STYLE["chosen"] if chosen else None,
        )
    return drawn


class _Bar(ProgressBar):
    """Rich's bar, whose empty part it tells by colour alone: without colours another line."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.color_system is not None and not console.no_color:
            yield from super().__rich_console__(console, options)
            return
        full = round(_METER_WIDTH * self.completed / (self.total or 1))
        yield Text("━" * full + "─" * (_METER_WIDTH - full))


def _meter(meter: Meter) -> RichTable:
    full = meter.whole > 0 and meter.part / meter.whole
    style = "red" if full > 1 else "yellow" if full > 0.85 else "green"
    row = RichTable.grid(padding=(0, 1))
    row.add_row(
        Text(meter.label),
        _Bar(
            total=max(meter.whole, 1),
            completed=min(meter.part, meter.whole),
            width=_METER_WIDTH,
            complete_style=style,
            finished_style=style,
        ),
        Text(meter.text),
    )
    return row
