"""The spare: one process with the libraries imported and no model, waiting for a load.

Whichever load is started next takes it, so a spare is never in a load's way: the room that a
load needs is counted without it, and what it holds is part of every claim's overhead. It is
started only when nothing is being loaded or waited for, in room that is free, and it goes
when that room is needed or the machine is short of memory. Its end is nobody's crash.
"""

from typing import Final

from daemon.pool import messages as m
from daemon.pool.budget import SPARE_BYTES, committed_bytes
from daemon.pool.draft import Draft
from daemon.pool.failure import back_off_ms
from daemon.pool.state import Loading, Pool

PAUSE_MS: Final = 10_000
"""After its room was needed: claims at the edge of the budget go up and down by the second."""


def keep_spare(draft: Draft) -> None:
    """Start a spare or let it go, as things are now: called after every change."""
    pool = draft.pool
    held = pool.spare.name
    if held is not None and not _may_stay(pool):
        draft.emit(m.SpareEnded(spare=held, retry_at_ms=draft.now_ms + PAUSE_MS))
    elif held is None and _may_start(pool) and pool.spare.retry_at_ms <= draft.now_ms:
        draft.emit(m.SpareStarted(spare=f"s{pool.spare.started + 1}"))


def spare_ended(draft: Draft, command: m.ReportSpareEnded) -> None:
    """A spare ended that nobody had told to: another follows, later each time."""
    spare = draft.pool.spare
    if spare.name == command.spare:
        retry_at_ms = draft.now_ms + back_off_ms(spare.failures + 1, loading=True)
        draft.emit(m.SpareEnded(spare=command.spare, why=command.why, retry_at_ms=retry_at_ms))


def spare_due_ms(pool: Pool) -> int | None:
    """When a spare may be started again after the last one; None if there may be none."""
    if pool.spare.name is not None or not _may_start(pool):
        return None
    return pool.spare.retry_at_ms


def _may_stay(pool: Pool) -> bool:
    return (
        pool.limits.spare
        and pool.stopping is None
        and pool.pressure == pool.pressure_reported.level == "normal"
        and committed_bytes(pool) + SPARE_BYTES <= pool.budget_bytes
    )


def _may_start(pool: Pool) -> bool:
    """A spare's imports take a processor for a second: they come after every load."""
    if pool.run is None or pool.waiters or pool.wishes or not _may_stay(pool):
        return False
    return not any(isinstance(slot, Loading) for slot in pool.slots.values())
