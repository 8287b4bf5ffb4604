"""Answers of the daemon as pages for people. Pure: no terminal, no clock, no colour."""

from datetime import UTC, datetime, tzinfo
from typing import Final

from ctl.blocks import Block, Cell, Column, Line, Meter, Page, Style, Table
from daemon.wire import control as c
from daemon.wire.units import counted, format_bytes, format_duration_ms, format_until_ms

NONE: Final = "-"

_STATE_STYLE: Final[dict[c.ModelState, Style]] = {
    "loading": "busy",
    "idle": "good",
    "busy": "busy",
    "draining": "warn",
    "stopping": "warn",
}
_NOTHING_LOADED: Final = Line("No model is loaded. To load one: mlxctl load MODEL", "dim")
_READ_ONLY: Final = (
    "Read-only: the event log cannot be written, so nothing is loaded, unloaded or evicted. "
    "Loaded models keep answering. See the daemon's log, and make room on the disk."
)


# --- status -------------------------------------------------------------------


def status_page(view: c.StatusView) -> Page:
    """The pool now: the daemon, its memory, what is loaded, who waits, what is wrong."""
    blocks: list[Block] = [_daemon_line(view), memory_meter(view), Line()]
    if view.models:
        blocks.append(resident_table(view))
        if view.spare_bytes:
            spare = format_bytes(view.spare_bytes)
            blocks.append(Line(f"and {spare} for the process that waits for the next load", "dim"))
    else:
        blocks.append(_NOTHING_LOADED)
    if view.queue:
        blocks += [Line(), Line(f"{counted(len(view.queue), 'request')} waiting", "title")]
        blocks.append(queue_table(view))
    if view.read_only or view.warnings:
        blocks.append(Line())
    if view.read_only:
        blocks.append(Line(_READ_ONLY, "bad"))
    blocks += [Line(f"Warning: {warning}", "warn") for warning in view.warnings]
    return tuple(blocks)


def past_page(view: c.StatusView, zone: tzinfo | None = None) -> Page:
    """The pool as it was; ``zone`` None is the local time zone."""
    at = datetime.fromtimestamp(view.now_ms / 1000, UTC).astimezone(zone)
    then = Line("No model was loaded.", "dim")
    return (
        Line(f"The pool as it was at {at:%Y-%m-%d %H:%M:%S}, after record {view.seq}", "title"),
        *(then if block == _NOTHING_LOADED else block for block in status_page(view)),
        Line(),
        Line("The log holds no leases, running requests or waiters: they are not shown.", "dim"),
    )


def _daemon_line(view: c.StatusView) -> Line:
    up = format_duration_ms(max(0, view.now_ms - view.started_at_ms))
    return Line(f"mlxd {view.version}, up {up}, pid {view.pid}, home {view.home}", "dim")


def memory_meter(view: c.StatusView) -> Meter:
    """Claimed memory against the budget."""
    left = view.budget_bytes - view.committed_bytes
    percent = round(100 * view.committed_bytes / view.budget_bytes) if view.budget_bytes else 0
    rest = f"{format_bytes(left)} free" if left >= 0 else f"{format_bytes(-left)} over"
    return Meter(
        label="Memory",
        part=view.committed_bytes,
        whole=view.budget_bytes,
        text=f"{format_bytes(view.committed_bytes)} of {format_bytes(view.budget_bytes)} "
        f"({percent} %), {rest}",
    )


def resident_table(view: c.StatusView) -> Table:
    """What is in memory, a row a model, in the daemon's order."""
    columns = (
        Column("NAME"),
        Column("STATE"),
        Column("SIZE", right=True),
        Column("CONTEXT", right=True, spare=2),
        Column("LEASES", right=True, spare=3),
        Column("TOK/S", right=True, spare=1),
        Column("UNTIL"),
    )
    return Table(columns, tuple(_row(model, view.now_ms) for model in view.models))


def _row(model: c.ResidentModel, now_ms: int) -> tuple[Cell, ...]:
    return (
        Cell(model.name, "title"),
        Cell(_state(model), _STATE_STYLE[model.state]),
        Cell(format_bytes(model.claim_bytes)),
        Cell(_tokens(model.context_tokens)),
        Cell(str(model.leases)),
        Cell(f"{model.tokens_per_s:,.1f}" if model.tokens_per_s else NONE),
        Cell(_until(model, now_ms)),
    )


def _state(model: c.ResidentModel) -> str:
    if model.state == "loading":
        return f"loading {model.progress:.0%}" if model.progress else "loading"
    return f"busy: {model.running} running" if model.running else model.state


def _until(model: c.ResidentModel, now_ms: int) -> str:
    if model.state in {"draining", "stopping"}:
        return NONE
    if model.pinned:
        return "pinned"
    if model.state == "busy":
        return "in use"
    if model.expires_at_ms is None:
        return "forever" if model.state == "idle" else NONE
    return format_until_ms(model.expires_at_ms, now_ms)


def queue_table(view: c.StatusView) -> Table:
    """Who waits, for what and how long."""
    columns = (Column("MODEL"), Column("CLIENT"), Column("WAITING"), Column("GIVES UP"))
    rows = tuple(
        (
            Cell(request.model, "title"),
            Cell(request.client),
            Cell(format_duration_ms(max(0, view.now_ms - request.since_ms))),
            Cell(format_until_ms(request.deadline_at_ms, view.now_ms)),
        )
        for request in view.queue
    )
    return Table(columns, rows)


# --- loading ------------------------------------------------------------------


def loaded_line(answer: c.Loaded) -> Line:
    """What a load came to."""
    size = format_bytes(answer.measured_bytes)
    if answer.load_ms == 0:
        return Line(f"{answer.model} was loaded already ({size})")
    return Line(f"{answer.model} is loaded: {size} in {format_duration_ms(answer.load_ms)}")


def unloaded_line(answer: c.Unloaded) -> Line:
    """What an unload gave back."""
    return Line(f"{answer.model} is unloaded: {format_bytes(answer.freed_bytes)} freed")


def evicted_line(answer: c.Unloaded) -> Line:
    """What an eviction gave back."""
    return Line(f"{answer.model} is evicted: {format_bytes(answer.freed_bytes)} freed")


def _tokens(count: int) -> str:
    return f"{count:,}" if count else NONE
