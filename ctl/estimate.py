"""What a load would come to, as a page and as JSON. Pure."""

from typing import Final

from ctl.blocks import Block, Cell, Column, Line, Page, Style, Table
from daemon.wire import control as c
from daemon.wire.units import format_bytes, format_duration_ms

_STYLES: Final[dict[str, Style]] = {"refused": "bad", "waits": "warn", "evicts": "warn"}


def estimate_page(told: c.LoadEstimate) -> Page:
    """The arithmetic, then what would happen and why."""
    blocks: list[Block] = [
        Line(f"Loading {told.model} would take {format_bytes(told.claim_bytes)}", "title"),
        Line(),
        Table((Column(""), Column("", right=True), Column("")), _sum(told), header=False),
        Line(),
        Line(_verdict(told), _STYLES.get(told.verdict, "good")),
    ]
    if told.verdict in ("loads", "evicts", "waits"):
        blocks.append(Line(_time(told), "dim"))
    if told.verdict in ("evicts", "waits", "refused") and told.considered:
        blocks += [Line(), _considered(told)]
    blocks += [Line(f"Passed over: {passed}", "dim") for passed in told.passed_over]
    return tuple(blocks)


def _sum(told: c.LoadEstimate) -> tuple[tuple[Cell, ...], ...]:
    kv = f"{told.kv_tokens:,} tokens of {format_bytes(told.kv_token_bytes)} each"
    free = told.budget_bytes - told.committed_bytes
    residue = ""
    if told.residue_bytes:
        residue = f"less {format_bytes(told.residue_bytes)} that ended workers still hold"
    rows = [
        ("weights", told.weights_bytes, _files(told)),
        ("KV cache", told.kv_bytes, kv),
        ("overhead", told.overhead_bytes, _overhead(told)),
        ("claim", told.claim_bytes, "reserved before it is loaded"),
        ("budget", told.budget_bytes, residue),
        ("committed", told.committed_bytes, "to models in memory, loading and leaving"),
        ("free" if free >= 0 else "over", abs(free), ""),
    ]
    return tuple((Cell(name), Cell(format_bytes(n)), Cell(note, "dim")) for name, n, note in rows)


def _files(told: c.LoadEstimate) -> str:
    if told.draft is None:
        return "from the files"
    return f"from the files, with those of its draft {told.draft}"


def _overhead(told: c.LoadEstimate) -> str:
    if told.measured_bytes is None:
        return "a worker without its weights; it was never loaded before"
    return f"a worker without its weights; last time it held {format_bytes(told.measured_bytes)}"


def _verdict(told: c.LoadEstimate) -> str:
    match told.verdict:
        case "resident":
            return "It is in memory already."
        case "loading":
            return "It is being loaded already."
        case "loads" if told.over_budget:
            return "It does not fit; with --over-budget it would be loaded all the same."
        case "loads":
            return "It fits: it would be loaded at once."
        case "evicts":
            goes = ", ".join(seen.model for seen in told.considered if seen.goes)
            needed = f" to free {format_bytes(told.needed_bytes)}" if told.needed_bytes else ""
            return f"It would be loaded after evicting {goes}{needed} (rule {told.rule})."
        case "waits":
            return f"It would wait: {told.reason}."
        case "refused":
            assert told.fault is not None, "a refusal has its fault"
            return f"It would be refused ({told.fault.code}): {told.fault.message}."


def _time(told: c.LoadEstimate) -> str:
    took = format_duration_ms(told.load_ms)
    if told.learned:
        return f"It took {took} last time, once its process had started."
    return f"It was never loaded before: {took} is assumed."


def _considered(told: c.LoadEstimate) -> Table:
    columns = (
        Column("IN MEMORY"),
        Column("SIZE", right=True),
        Column("LAST USED", right=True),
        Column("", grow=True),
    )
    return Table(columns, tuple(_seen(seen, told.now_ms) for seen in told.considered))


def _seen(seen: c.Considered, now_ms: int) -> tuple[Cell, ...]:
    if seen.goes:
        fate = Cell("would go", "warn")
    else:
        fate = Cell("could go" if seen.why_not is None else f"stays: {seen.why_not}", "dim")
    ago = format_duration_ms(max(0, now_ms - seen.last_used_at_ms))
    return (
        Cell(seen.model, "title"),
        Cell(format_bytes(seen.claim_bytes)),
        Cell(f"{ago} ago"),
        fate,
    )
