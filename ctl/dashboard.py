"""What ``mlxctl top`` shows: the pool, what happens in it, one model chosen. Pure."""

from collections import deque
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from ctl.blocks import Block, Cell, Line, Meter, Page, Style, Table
from ctl.render import memory_meter, queue_table, resident_table
from daemon.wire import control as c
from daemon.wire.records import ModelNames, Record
from daemon.wire.sentences import sentence
from daemon.wire.units import counted, format_duration_ms

EVENTS_KEPT: Final = 200
"""More than any terminal has lines."""
KEYS: Final = "↑↓ choose   u unload   p pin or unpin   w why   q quit"
_METER_WIDTH: Final = 40
_QUIET: Final = frozenset({"usage.recorded", "worker.spawned"})
"""Of interest afterwards, and not while one looks on."""


class Dashboard:
    """The state of the screen.

    Attributes:
        page_shown: A page that is shown instead of the pool, until the next key.
    """

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.page_shown: Page | None = None
        self._zone = zone
        self._view: c.StatusView | None = None
        self._chosen: str | None = None
        self._said = Line()
        self._events: deque[Line] = deque(maxlen=EVENTS_KEPT)
        self._names = ModelNames({})

    @property
    def chosen(self) -> c.ResidentModel | None:
        """The model that keys act on."""
        models = self._view.models if self._view else ()
        found = next((model for model in models if model.worker == self._chosen), None)
        return found or next(iter(models), None)

    def take_status(self, view: c.StatusView) -> None:
        """The pool as it is now."""
        self._view = view
        if (chosen := self.chosen) is not None:
            self._chosen = chosen.worker

    def take_record(self, record: Record) -> None:
        """Something happened."""
        self._names.learn(record)
        at = datetime.fromtimestamp(record.at_ms / 1000, UTC).astimezone(self._zone)
        for event in record.events:
            if event.get("type") not in _QUIET:
                name = self._names.name(event)
                subject = f"{name}: " if name else ""
                self._events.append(Line(f"{at:%H:%M:%S}  {subject}{sentence(event)}"))

    def say(self, text: str, style: Style = "plain") -> None:
        """A remark above the keys, until the next one."""
        self._said = Line(text, style)

    def move(self, by: int) -> None:
        """Choose the model so many rows further down."""
        models = self._view.models if self._view else ()
        if (chosen := self.chosen) is not None:
            at = models.index(chosen) + by
            self._chosen = models[min(max(at, 0), len(models) - 1)].worker

    def foot(self) -> tuple[Line, Line]:
        """The lowest two lines: the last remark, and the keys."""
        if self.page_shown is not None:
            return Line(), Line("any key goes back", "dim")
        return self._said, Line(KEYS, "dim")

    def body(self, width: int, height: int) -> Page:
        """What stands above: the pool, and as much of what happened as there is room for."""
        if self.page_shown is not None:
            return self.page_shown
        pool = self._pool()
        room = height - sum(_lines(block, width) for block in pool) - 2
        if room <= 0 or not self._events:
            return pool
        newest = [_cut(line, width) for line in list(self._events)[-room:]]
        return (*pool, Line(), Line("LATELY", "dim"), *newest)

    def _pool(self) -> Page:
        view = self._view
        if view is None:
            return (Line("mlxd is not there; waiting for it …", "warn"),)
        up = format_duration_ms(max(0, view.now_ms - view.started_at_ms))
        blocks: list[Block] = [
            Line(f"mlxd {view.version}, up {up}, {counted(len(view.models), 'model')}", "dim"),
            memory_meter(view),
            *(Line(f"Warning: {warning}", "warn") for warning in view.warnings),
            Line(),
        ]
        if view.models:
            blocks.append(self._marked(resident_table(view), view))
        else:
            blocks.append(Line("No model is loaded.", "dim"))
        if view.queue:
            blocks += [Line(), Line(f"{counted(len(view.queue), 'request')} waiting", "title")]
            blocks.append(queue_table(view))
        return tuple(blocks)

    def gone(self) -> None:
        """The daemon is not there."""
        self._view = None

    def _marked(self, table: Table, view: c.StatusView) -> Table:
        chosen = self.chosen
        rows = tuple(
            tuple(Cell(cell.text, "chosen") for cell in row) if model == chosen else row
            for row, model in zip(table.rows, view.models, strict=True)
        )
        return msgspec.structs.replace(table, rows=rows)


def _lines(block: Block, width: int) -> int:
    """About how many lines a block takes; what is too much is cut off below."""
    if isinstance(block, Table):
        return len(block.rows) + 1
    long = len(block.text) + (_METER_WIDTH if isinstance(block, Meter) else 0)
    return max(1, -(-long // width))


def _cut(line: Line, width: int) -> Line:
    long = len(line.text) > width
    return Line(line.text[: width - 1] + "…", line.style) if long else line
