"""Blocks as aligned text without any codes: what pipes, files and dumb terminals get."""

from collections.abc import Sequence

from ctl.blocks import Block, Cell, Column, Line, Meter, Table, harmless

_GAP = "  "


def plain(blocks: Sequence[Block]) -> str:
    """The page as text, every line ended by a newline, no line with blanks at its end."""
    return "".join(line.rstrip() + "\n" for block in blocks for line in _lines(block))


def _lines(block: Block) -> list[str]:
    match block:
        case Line():
            return [harmless(block.text)]
        case Meter():
            return [f"{block.label}: {block.text}"]
        case Table():
            return _table(block)


def _table(table: Table) -> list[str]:
    heading = tuple(Cell(column.title) for column in table.columns)
    rows = [heading, *table.rows] if table.header else list(table.rows)
    widths = [
        column.width or max((len(row[at].text) for row in rows), default=0)
        for at, column in enumerate(table.columns)
    ]
    return [_row(row, table.columns, widths) for row in rows]


def _row(row: tuple[Cell, ...], columns: tuple[Column, ...], widths: list[int]) -> str:
    texts = (harmless(cell.text).replace("\n", " ") for cell in row)
    return _GAP.join(
        text.rjust(width) if column.right else text.ljust(width)
        for text, column, width in zip(texts, columns, widths, strict=True)
    )
