"""``evolve`` for durable events that are about a model or the daemon, not about a slot."""

from typing import TypeVar, assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.state import (
    CRASHES_KEPT,
    REFUSALS_EVERY_MS,
    Busy,
    Draining,
    Failures,
    Idle,
    Loading,
    Pool,
    Refusals,
    Residue,
    Run,
    Slot,
    Stopping,
    put,
)

K = TypeVar("K")
T = TypeVar("T")


def evolve_fact(pool: Pool, event: m.ModelEvent | m.DaemonEvent, at_ms: int) -> Pool:
    """The pool once ``event`` is true."""
    if isinstance(event, m.ModelEvent):
        return _model_event(pool, event, at_ms)
    return _daemon_event(pool, event, at_ms)


def _model_event(pool: Pool, event: m.ModelEvent, at_ms: int) -> Pool:
    match event:
        case m.ModelPinned():
            pool = replace(pool, pins=pool.pins | {event.key})
            slot = pool.slots.get(event.key)
            return pool if slot is None else put(pool, _kept(slot))
        case m.ModelUnpinned():
            return replace(pool, pins=pool.pins - {event.key})
        case m.ModelTtlChanged():
            return _ttl_changed(pool, event)
        case m.ModelKept():
            return put(pool, _kept(pool.slots[event.key]))
        case m.ModelQuarantined():
            return _quarantined(pool, event)
        case m.ModelUnquarantined():
            return replace(pool, failures=without(pool.failures, event.key))
        case m.RequestRefused():
            return _refused(pool, event, at_ms)
        case m.ThrashNoticed():
            return replace(pool, evictions=without(pool.evictions, event.key))
        case _:
            assert_never(event)


def _daemon_event(pool: Pool, event: m.DaemonEvent, at_ms: int) -> Pool:  # noqa: PLR0911 - a table
    match event:
        case m.DaemonStarted():
            return _daemon_started(pool, event, at_ms)
        case m.DaemonSettled():
            return replace(pool, run=replace(_run(pool), settled=True))
        case m.DaemonStopped():
            return replace(pool, run=replace(_run(pool), ended_well=True))
        case m.ConfigChanged():
            return pool if event.limits is None else replace(pool, limits=event.limits)
        case m.ClockJumped():
            return _shifted(pool, event.by_ms)
        case m.MemoryPressure():
            return _under_pressure(pool, event.level, at_ms)
        case m.MemoryResidue():
            residue = Residue(residue_bytes=event.residue_bytes, boot_id=event.boot_id)
            return replace(pool, residues={**pool.residues, event.worker: residue})
        case m.SafeModeEntered():
            return replace(pool, safe_mode_since_ms=at_ms, wishes=())
        case m.SafeModeLeft():
            return replace(pool, safe_mode_since_ms=None)
        case m.LogTailLost():
            return pool
        case _:
            assert_never(event)


# --- models -----------------------------------------------------------------------


def _kept(slot: Slot) -> Slot:
    return replace(slot, tenant=replace(slot.tenant, kept=True))


def _ttl_changed(pool: Pool, event: m.ModelTtlChanged) -> Pool:
    slot = pool.slots.get(event.key)
    if slot is None:
        return pool
    slot = replace(slot, tenant=replace(slot.tenant, ttl_ms=event.ttl_ms, ttl_asked=True))
    if isinstance(slot, Idle | Busy | Draining):
        slot = replace(slot, service=replace(slot.service, ttl_asked_ms=None))
    return put(pool, slot)


def _quarantined(pool: Pool, event: m.ModelQuarantined) -> Pool:
    before = pool.failures.get(event.key) or Failures(
        model=event.model, reason="crashed", message=event.message, identity=""
    )
    failures = {
        **pool.failures,
        event.key: replace(before, quarantined=True, message=event.message),
    }
    kept = without(pool.kept, event.key)
    wishes = tuple(w for w in pool.wishes if w.option.model.key != event.key)
    return replace(pool, failures=failures, kept=kept, wishes=wishes)


def failed(
    pool: Pool,
    model: m.Model,
    reason: m.FailureReason,
    message: str,
    at_ms: int,
    *,
    loading: bool,
) -> Pool:
    """What is known of ``model`` after one more failure, ``loading`` or serving."""
    before = pool.failures.get(model.key)
    crashes = before.crashed_at_ms if before is not None else ()
    if reason == "crashed":
        crashes = (*crashes, at_ms)[-CRASHES_KEPT:]
    failures = Failures(
        model=model.name,
        reason=reason,
        message=message,
        identity=model.identity,
        crashed_at_ms=crashes,
        loading=loading,
        quarantined=before is not None and before.quarantined,
    )
    return replace(pool, failures={**pool.failures, model.key: failures})


def _refused(pool: Pool, event: m.RequestRefused, at_ms: int) -> Pool:
    """Entries that no longer hold anything back are forgotten."""
    fresh = {
        pair: entry
        for pair, entry in pool.refusals.items()
        if entry.uncounted or entry.recorded_at_ms + REFUSALS_EVERY_MS > at_ms
    }
    fresh[event.key, event.code] = Refusals(recorded_at_ms=at_ms, last=event)
    return replace(pool, refusals=fresh)


# --- the daemon -------------------------------------------------------------------


def _run(pool: Pool) -> Run:
    assert pool.run is not None, "a run begins with daemon.started"
    return pool.run


def _daemon_started(pool: Pool, event: m.DaemonStarted, at_ms: int) -> Pool:
    limits = event.limits or replace(pool.limits, budget_bytes=event.budget_bytes)
    boot_id = event.boot_id
    residues = {w: r for w, r in pool.residues.items() if r.boot_id == boot_id}
    run = Run(
        pid=event.pid,
        version=event.version,
        memory_total_bytes=event.memory_total_bytes,
        boot_id=boot_id,
        started_at_ms=at_ms,
    )
    last = pool.run
    if last is not None and not last.settled and not last.ended_well:
        loading = {
            slot.tenant.model.key: slot.tenant.model.name
            for slot in pool.slots.values()
            if isinstance(slot, Loading)
        }
        run = replace(
            run,
            unclean_before=last.unclean_before + 1,
            suspects=tuple(sorted((dict(last.suspects) | loading).items())),
        )
    kept = {
        key: k
        for key, k in pool.kept.items()
        if key in pool.pins or k.ttl_ms is None or k.used_at_ms + k.ttl_ms > at_ms
    }
    slots = {key: _timed_anew(slot, at_ms) for key, slot in pool.slots.items()}
    return replace(
        pool,
        slots=slots,
        limits=limits,
        generation=event.generation,
        run=run,
        residues=residues,
        kept=kept,
        safe_mode_since_ms=None,
        pressure="normal",
        short_since_ms=None,
    )


def _under_pressure(pool: Pool, level: m.PressureLevel, at_ms: int) -> Pool:
    since_ms = at_ms if pool.short_since_ms is None else pool.short_since_ms
    return replace(pool, pressure=level, short_since_ms=None if level == "normal" else since_ms)


def _timed_anew(slot: Slot, at_ms: int) -> Slot:
    """Workers could not answer while no daemon asked: their time begins again."""
    if isinstance(slot, Loading):
        return replace(slot, progress_at_ms=at_ms, inherited=True)
    return replace(slot, since_ms=at_ms) if isinstance(slot, Draining) else slot


def _shifted(pool: Pool, by_ms: int) -> Pool:
    """Nobody waited while the machine slept, nor did a shortage last; idle models idled."""
    slots = {key: _slot_shifted(slot, by_ms) for key, slot in pool.slots.items()}
    waiters = tuple(
        replace(
            w,
            since_ms=w.since_ms + by_ms,
            deadline_at_ms=None if w.deadline_at_ms is None else w.deadline_at_ms + by_ms,
        )
        for w in pool.waiters
    )
    leases = {
        name: replace(lease, granted_at_ms=lease.granted_at_ms + by_ms)
        for name, lease in pool.leases.items()
    }
    short_ms = None if pool.short_since_ms is None else pool.short_since_ms + by_ms
    return replace(pool, slots=slots, waiters=waiters, leases=leases, short_since_ms=short_ms)


def _slot_shifted(slot: Slot, by_ms: int) -> Slot:
    match slot:
        case Loading():
            return replace(
                slot, since_ms=slot.since_ms + by_ms, progress_at_ms=slot.progress_at_ms + by_ms
            )
        case Draining() | Stopping():
            return replace(slot, since_ms=slot.since_ms + by_ms)
        case Idle() | Busy():
            return slot
        case _:
            assert_never(slot)


def without(mapping: dict[K, T], key: K) -> dict[K, T]:
    """``mapping`` less ``key``, which need not be in it."""
    return {k: v for k, v in mapping.items() if k != key} if key in mapping else mapping
