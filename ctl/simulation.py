"""What a simulation says, beside what happened. Pure."""

from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from ctl.blocks import Cell, Column, Line, Page, Table
from daemon.wire.units import counted, format_bytes, format_duration_ms

NOT_RECORDED: Final = "-"


class Waits(msgspec.Struct, frozen=True):
    """Requests that waited for their model."""

    requests: int
    total_ms: int
    longest_ms: int


class Outcome(msgspec.Struct, frozen=True):
    """One column: what came of the demand."""

    requests: int
    waits: Waits | None
    refused: int
    loads: int
    loading_ms: int
    evictions: int
    expiries: int
    peak_bytes: int


class Rules(msgspec.Struct, frozen=True):
    """What was changed; None leaves it as it was recorded."""

    budget_bytes: int | None
    policy: str
    ttl_ms: int | None


class Comparison(msgspec.Struct, frozen=True):
    """The answer of ``mlxd history simulate``."""

    since_at_ms: int
    until_at_ms: int
    rules: Rules
    recorded: Outcome
    replayed: Outcome
    simulated: Outcome
    dropped: int


def simulation_page(told: Comparison, zone: tzinfo | None = None) -> Page:
    """Three columns: the log, the replay that checks the simulation, and the simulation."""
    since, until = (_clock(at_ms, zone) for at_ms in (told.since_at_ms, told.until_at_ms))
    columns = (
        Column(""),
        Column("HAPPENED", right=True),
        Column("REPLAYED", right=True),
        Column("SIMULATED", right=True),
    )
    cells = [_cells(one) for one in (told.recorded, told.replayed, told.simulated)]
    rows = [(Cell(name), *(Cell(column[name]) for column in cells)) for name in cells[0]]
    notes = [
        Line(),
        Line("HAPPENED is what the log says.", "dim"),
        Line(
            "REPLAYED puts the same demand through the pool's rules as they were: where it is",
            "dim",
        ),
        Line("near HAPPENED, SIMULATED can be believed.", "dim"),
    ]
    if told.dropped:
        lost = f"{counted(told.dropped, 'request')} without a recorded time could not be simulated."
        notes.append(Line(lost, "warn"))
    head = Line(f"From {since} to {until}: {_rules(told.rules)}", "title")
    return (head, Line(), Table(columns, rows), *notes)


def _rules(rules: Rules) -> str:
    parts = [f"policy {rules.policy.replace('_', '-')}"]
    if rules.ttl_ms is not None:
        parts.append(f"TTL {format_duration_ms(rules.ttl_ms)}")
    budget = rules.budget_bytes
    parts.append("budget as it was" if budget is None else f"budget {format_bytes(budget)}")
    return ", ".join(parts)


def _cells(outcome: Outcome) -> dict[str, str]:
    waits = outcome.waits
    return {
        "requests": f"{outcome.requests:,}",
        "refused": f"{outcome.refused:,}",
        "waited": f"{waits.requests:,}" if waits else NOT_RECORDED,
        "waited in all": format_duration_ms(waits.total_ms) if waits else NOT_RECORDED,
        "longest wait": format_duration_ms(waits.longest_ms) if waits else NOT_RECORDED,
        "loads": f"{outcome.loads:,}",
        "time spent loading": format_duration_ms(outcome.loading_ms),
        "evictions": f"{outcome.evictions:,}",
        "unloads by TTL": f"{outcome.expiries:,}",
        "most memory claimed": format_bytes(outcome.peak_bytes),
    }


def _clock(at_ms: int, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone):%Y-%m-%d %H:%M}"
