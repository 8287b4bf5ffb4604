"""Events of the log as rows for people. Pure: the time zone is given."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from ctl.blocks import Block, Cell, Column, Line, Page, Style, Table
from daemon.wire.records import Event, ModelNames, Record
from daemon.wire.sentences import cause_words, sentence

# Fixed widths: rows that come later must stand under rows that were printed before.
_PIPED: Final = (
    Column("SEQ", right=True, width=6),
    Column("TIME", width=19),
    Column("EVENT", width=19),
    Column("MODEL", width=24),
    Column("CAUSE", width=20),
    Column("WHAT", grow=True),
)
_WIDE: Final = (
    Column("SEQ", right=True, width=5),
    Column("TIME", width=8),
    Column("EVENT", width=18),
    Column("MODEL", width=24),
    Column("CAUSE", width=18),
    Column("WHAT", grow=True),
)
_NARROW: Final = (
    Column("SEQ", right=True, width=4),
    Column("TIME", width=8),
    Column("MODEL", width=16),
    Column("WHAT", grow=True),
)
_WIDE_FROM: Final = 120

_STYLES: Final[dict[str, Style]] = {
    "load.ready": "good",
    "load.failed": "bad",
    "evict.started": "warn",
    "model.quarantined": "bad",
    "request.refused": "warn",
    "thrash.noticed": "warn",
    "memory.pressure": "warn",
    "memory.residue": "warn",
    "safe_mode.entered": "bad",
    "log.tail_lost": "bad",
}


class Timeline:
    """Turns records into tables that continue one another.

    Args:
        width: Of the terminal; None where there is none. Then every date is written out, no
            name is cut, and a column that something is too long for stays wider from there on.
        zone: None is the local time zone.
    """

    def __init__(self, names: ModelNames, width: int | None, zone: tzinfo | None = None) -> None:
        self._names = names
        self._zone = zone
        self._dates = width is None
        self._columns: tuple[Column, ...] = (
            _PIPED if width is None else _WIDE if width >= _WIDE_FROM else _NARROW
        )
        self._model_width = next(c.width or 0 for c in self._columns if c.title == "MODEL")
        self._headed = False
        self._day = ""

    def page(self, records: Sequence[tuple[Record, Sequence[Event]]]) -> Page:
        """The wanted events of ``records``, one row each, under one heading for all pages."""
        blocks: list[Block] = []
        rows: list[tuple[Cell, ...]] = []
        for record, events in records:
            at = datetime.fromtimestamp(record.at_ms / 1000, UTC).astimezone(self._zone)
            if not self._dates and f"{at:%Y-%m-%d}" != self._day:
                self._day = f"{at:%Y-%m-%d}"
                blocks += self._table(rows)
                blocks.append(Line(self._day, "dim"))
                rows = []
            rows += [self._row(record, event, at) for event in events]
        blocks += self._table(rows)
        heading = () if self._headed else (Table(self._columns, ()),)
        self._headed = True
        return (*heading, *blocks)

    def _table(self, rows: Sequence[tuple[Cell, ...]]) -> tuple[Table, ...]:
        if self._dates:
            self._columns = tuple(
                column if column.grow else _widened(column, (row[at].text for row in rows))
                for at, column in enumerate(self._columns)
            )
        return (Table(self._columns, tuple(rows), header=False),) if rows else ()

    def _row(self, record: Record, event: Event, at: datetime) -> tuple[Cell, ...]:
        seq = Cell(str(record.seq), "dim")
        time = Cell(f"{at:%Y-%m-%d %H:%M:%S}" if self._dates else f"{at:%H:%M:%S}")
        name = self._names.name(event)
        model = Cell(name if self._dates else _shortened(name, self._model_width), "title")
        cause = cause_words(record.cause)
        if self._columns is _NARROW:
            return seq, time, model, Cell(f"{sentence(event)} [{cause}]", _style(event))
        kind = Cell(str(event.get("type", "?")), _style(event))
        return seq, time, kind, model, Cell(cause, "dim"), Cell(sentence(event))


def _widened(column: Column, texts: Iterable[str]) -> Column:
    longest = max(map(len, texts), default=0)
    return msgspec.structs.replace(column, width=max(column.width or 0, longest))


def _shortened(name: str, width: int) -> str:
    """A long name without its middle: family and quantisation stand at its ends."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def _style(event: Event) -> Style:
    if event.get("type") == "worker.exited" and not event.get("expected"):
        return "bad"
    return _STYLES.get(str(event.get("type")), "plain")
