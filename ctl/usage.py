"""What was used, added up from the log's usage records. Pure: the time zone is given."""

from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal, TypeVar

import msgspec

from ctl.blocks import Cell, Column, Line, Page, Table
from daemon.wire.records import Record
from daemon.wire.units import format_duration_ms

T = TypeVar("T")
By = Literal["day", "model"]
BYS: Final = ("day", "model")
_COUNTS: Final = (
    "requests", "prompt_tokens", "completion_tokens", "busy_ms",
    "waited", "waited_ms", "waited_max_ms",
)  # fmt: skip


class Use(msgspec.Struct, kw_only=True):
    """Counts over finished requests; ``busy_ms`` is time with at least one running.

    ``waited`` of them waited for a load or for room, ``waited_ms`` together.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    busy_ms: int = 0
    waited: int = 0
    waited_ms: int = 0
    waited_max_ms: int = 0

    def add(self, counts: dict[str, Any]) -> None:
        self.requests += counts["requests"]
        self.prompt_tokens += counts["prompt_tokens"]
        self.completion_tokens += counts["completion_tokens"]
        self.busy_ms += counts["busy_ms"]
        waits = counts.get("waits")
        if waits is not None:  # older daemons did not count them
            self.waited += waits["requests"]
            self.waited_ms += waits["total_ms"]
            self.waited_max_ms = max(self.waited_max_ms, waits["longest_ms"])


class UsageSum:
    """Adds usage up by day, by model, or by both.

    Args:
        by: What a row stands for; None is a model on a day.
        zone: Whose days these are; None is the local time zone.
    """

    def __init__(self, by: By | None, zone: tzinfo | None = None) -> None:
        self._by = by
        self._zone = zone
        self._rows: dict[tuple[str, str], Use] = {}
        self.total = Use()

    def take(self, record: Record) -> None:
        """Count what ``record`` says was used; a window counts for the day it ended on."""
        for event in record.events:
            if event.get("type") == "usage.recorded":
                row = self._rows.setdefault(self._place(record, str(event["model"])), Use())
                row.add(event)
                self.total.add(event)

    def _place(self, record: Record, model: str) -> tuple[str, str]:
        if self._by == "model":
            return "", model
        at = datetime.fromtimestamp(record.at_ms / 1000, UTC).astimezone(self._zone)
        return f"{at:%Y-%m-%d}", "" if self._by == "day" else model

    def shape(self, since_ms: int | None) -> dict[str, Any]:
        """The documented ``--json`` shape."""
        rows = []
        for (day, model), use in sorted(self._rows.items()):
            place = {"day": day} if day else {}
            rows.append({**place, **({"model": model} if model else {}), **_counts(use)})
        return {"v": 1, "since_at_ms": since_ms, "rows": rows, "total": _counts(self.total)}

    def page(self) -> Page:
        """For people; a total below more than one row."""
        if not self._rows:
            return (Line("Nothing was used, as far as the log goes.", "dim"),)
        rows = [self._row(place, use) for place, use in sorted(self._rows.items())]
        if len(rows) > 1:
            rows.append(self._row(("total", "total" if self._by == "model" else ""), self.total))
        spares = {"REQUESTS": 0, "READ": 0, "WRITTEN": 0, "BUSY": 0, "WAITED": 1, "LONGEST WAIT": 2}
        numbers = (Column(title, right=True, spare=spare) for title, spare in spares.items())
        return (Table((*self._columns(Column("DAY"), Column("MODEL")), *numbers), rows),)

    def _columns(self, day: T, model: T) -> tuple[T, ...]:
        """Those of the two that a row of this sum has."""
        match self._by:
            case "day":
                return (day,)
            case "model":
                return (model,)
            case None:
                return day, model

    def _row(self, place: tuple[str, str], use: Use) -> tuple[Cell, ...]:
        return (
            *self._columns(Cell(place[0]), Cell(place[1], "title")),
            Cell(f"{use.requests:,}"),
            Cell(f"{use.prompt_tokens:,}"),
            Cell(f"{use.completion_tokens:,}"),
            Cell(format_duration_ms(use.busy_ms)),
            Cell(f"{use.waited:,}"),
            Cell(format_duration_ms(use.waited_max_ms) if use.waited else "-"),
        )


def _counts(use: Use) -> dict[str, int]:
    return {name: getattr(use, name) for name in _COUNTS}
