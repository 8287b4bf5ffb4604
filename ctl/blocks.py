"""What a page for people is made of, before anybody knows where it will be shown.

:mod:`ctl.render` turns answers into blocks, :mod:`ctl.plain` turns blocks into aligned
text, :mod:`ctl.pretty` into rich renderables. Styles are meanings, not colours.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

_CONTROL_CODES: Final = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0)], "\N{REPLACEMENT CHARACTER}"
) | {0x09: "\t", 0x0A: "\n", 0x0D: ""}

Style = Literal["plain", "title", "dim", "good", "busy", "warn", "bad", "chosen"]


class Cell(msgspec.Struct, frozen=True):
    """One field of a table."""

    text: str
    style: Style = "plain"


class Column(msgspec.Struct, frozen=True):
    """A heading and how its fields stand.

    Attributes:
        right: Numbers stand right.
        grow: Takes what width is left, and wraps there.
        width: Fixed width in characters, for tables that are printed piece by piece.
        spare: Where a terminal is too narrow, the columns with the greatest go first; 0 stays.
    """

    title: str
    right: bool = False
    grow: bool = False
    width: int | None = None
    spare: int = 0


class Table(msgspec.Struct, frozen=True):
    """Rows under headings; every row has a cell a column."""

    columns: tuple[Column, ...]
    rows: Sequence[tuple[Cell, ...]]
    header: bool = True


class Line(msgspec.Struct, frozen=True):
    """One paragraph; an empty text is an empty line."""

    text: str = ""
    style: Style = "plain"


class Meter(msgspec.Struct, frozen=True):
    """A part of a whole: a bar where one can be drawn, and words everywhere."""

    label: str
    part: int
    whole: int
    text: str


Block = Table | Line | Meter
Page = tuple[Block, ...]


def harmless(text: str) -> str:
    """``text`` for a terminal: nothing in it can move the cursor or change a setting."""
    return text.translate(_CONTROL_CODES)
