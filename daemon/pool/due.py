"""What is due by the clock, and when the next thing will be."""

from typing import assert_never

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.failure import retry_at_ms
from daemon.pool.leaving import begin_unload, outgrown_bytes, relief_at_ms
from daemon.pool.refusing import next_record_ms, record_counted
from daemon.pool.shapes import idle_ms
from daemon.pool.spare import spare_due_ms
from daemon.pool.state import (
    DRAIN_STALL_MS,
    LEASE_LAPSE_MS,
    MIN_RESIDENCY_MS,
    PRESSURE_HOLD_MS,
    SAFE_MODE_MS,
    SETTLED_MS,
    Busy,
    Draining,
    Idle,
    Loading,
    Pool,
    Slot,
    Stopping,
    residents,
)

_RANK: dict[m.PressureLevel, int] = {"normal": 0, "soft": 1, "hard": 2}


def expire(draft: Draft) -> None:
    """Everything whose time has come, but for loads that stalled and waiters."""
    for name, lease in draft.pool.leases.items():
        if not lease.used and lease.granted_at_ms + LEASE_LAPSE_MS <= draft.now_ms:
            model = draft.pool.slots[lease.key].tenant.model.name
            draft.emit(m.LeaseEnded(lease=name, model=model, how="lapsed"))
    recording = draft.pool.read_only is None
    stays = draft.pool.stopping is not None or not recording
    for key, slot in draft.pool.slots.items():
        if isinstance(slot, Idle):
            expires_at_ms = None if stays else expiry_ms(draft.pool, key, slot)
            if expires_at_ms is not None and expires_at_ms <= draft.now_ms:
                begin_unload(draft, slot, "ttl")
        elif isinstance(slot, Draining) and slot.since_ms + DRAIN_STALL_MS <= draft.now_ms:
            worker, model = slot.tenant.worker, slot.tenant.model.name
            draft.emit(m.DrainConfirmed(worker=worker, model=model, how="unresponsive"))
    if recording:
        _expire_recorded(draft)


def _expire_recorded(draft: Draft) -> None:
    """What must be recorded to be true: not while the log cannot be written."""
    pool, now_ms = draft.pool, draft.now_ms
    settled_at_ms = _settled_at_ms(pool)
    if settled_at_ms is not None and settled_at_ms <= now_ms:
        draft.emit(m.DaemonSettled(generation=pool.generation))
    if pool.safe_mode_since_ms is not None and pool.safe_mode_since_ms + SAFE_MODE_MS <= now_ms:
        draft.emit(m.SafeModeLeft(reason=f"{SAFE_MODE_MS // 60_000} minutes have passed"))
    level_at_ms = _pressure_change_ms(pool)
    if level_at_ms is not None and level_at_ms <= now_ms:
        level = pool.pressure_reported.level
        rising = _RANK[level] > _RANK[pool.pressure]
        told = residents(pool) if rising else []  # to drop what they keep for later requests
        names = tuple(slot.tenant.model.name for slot in told)
        draft.emit(m.MemoryPressure(level=level, trimmed=names))
    record_counted(draft)


def next_due_ms(pool: Pool, now_ms: int) -> int | None:
    """When a ``Tick`` can next change something; None: not before another command.

    What was due before is done: every decision looks at all that is due.
    """
    due = [w.deadline_at_ms for w in pool.waiters if w.deadline_at_ms is not None]
    due += [
        lease.granted_at_ms + LEASE_LAPSE_MS for lease in pool.leases.values() if not lease.used
    ]
    short = bool(pool.waiters) or outgrown_bytes(pool) > 0
    for key, slot in pool.slots.items():
        due += _slot_due(pool, key, slot, short=short)
    for waiter in pool.waiters:
        due += (waiter.since_ms + MIN_RESIDENCY_MS, retry_at_ms(pool, waiter.option.model.key))
    due += [retry_at_ms(pool, wish.option.model.key) for wish in pool.wishes]
    due += next_record_ms(pool)
    if pool.safe_mode_since_ms is not None:
        due.append(pool.safe_mode_since_ms + SAFE_MODE_MS)
    other = (
        _settled_at_ms(pool),
        _pressure_change_ms(pool),
        relief_at_ms(pool),
        spare_due_ms(pool),
    )
    due += [t for t in other if t is not None]
    return min((t for t in due if t > now_ms), default=None)


def _slot_due(pool: Pool, key: str, slot: Slot, *, short: bool) -> list[int]:
    match slot:
        case Loading():
            return [slot.progress_at_ms + pool.limits.load_stall_ms]
        case Draining():
            return [slot.since_ms + DRAIN_STALL_MS]
        case Idle():
            expires_at_ms = expiry_ms(pool, key, slot)
            due = [] if expires_at_ms is None else [expires_at_ms]
            return [*due, slot.service.loaded_at_ms + MIN_RESIDENCY_MS] if short else due
        case Busy() | Stopping():
            return []
        case _:
            assert_never(slot)


def expiry_ms(pool: Pool, key: str, slot: Idle) -> int | None:
    """When an idle model is unloaded for want of use; None: it stays."""
    asked_ms, ttl_ms = slot.service.ttl_asked_ms, slot.tenant.ttl_ms
    if asked_ms is not None:
        ttl_ms = idle_ms(asked_ms)
    if ttl_ms is None or key in pool.pins:
        return None
    return slot.service.last_used_at_ms + ttl_ms


def _settled_at_ms(pool: Pool) -> int | None:
    run = pool.run
    if run is None or run.settled or run.ended_well:
        return None
    return run.started_at_ms + SETTLED_MS


def _pressure_change_ms(pool: Pool) -> int | None:
    """When what the system reported takes effect; None if it has."""
    reported = pool.pressure_reported
    if reported.level == pool.pressure:
        return None
    rising = _RANK[reported.level] > _RANK[pool.pressure]
    return reported.since_ms if rising else reported.since_ms + PRESSURE_HOLD_MS
