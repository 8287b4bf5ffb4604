"""``evolve``: believe an event. It asserts, and never refuses.

It looks at no limit, so that a log replayed under another configuration gives the same
pool.
"""

from typing import assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.facts import evolve_fact, failed, without
from daemon.pool.state import THRASH_EVICTIONS as EVICTIONS_KEPT
from daemon.pool.state import (
    Busy,
    Draining,
    Eviction,
    Idle,
    Kept,
    Learned,
    Leaving,
    Loading,
    Pool,
    Process,
    Service,
    Stopping,
    Tenant,
    put,
)
from daemon.pool.volatile import evolve_volatile


def evolve(pool: Pool, event: m.Event, at_ms: int) -> Pool:
    """The pool once ``event`` is true, which it became at ``at_ms``."""
    if isinstance(event, m.Volatile):
        return evolve_volatile(pool, event, at_ms)
    if isinstance(event, m.SlotEvent):
        return _slot_event(pool, event, at_ms)
    return evolve_fact(pool, event, at_ms)


def _slot_event(pool: Pool, event: m.SlotEvent, at_ms: int) -> Pool:
    match event:
        case m.LoadStarted():
            return _load_started(pool, event, at_ms)
        case m.WorkerSpawned():
            return _worker_spawned(pool, event)
        case m.LoadReady():
            return _load_ready(pool, event, at_ms)
        case m.LoadFailed():
            return _load_failed(pool, event, at_ms)
        case m.WorkerAdopted():
            return _worker_adopted(pool, event)
        case m.WorkerExited():
            return _worker_exited(pool, event, at_ms)
        case m.EvictStarted():
            return _evict_started(pool, event, at_ms)
        case m.UnloadStarted():
            return _leaving(pool, event.worker, at_ms, event.reason, evicting=False)
        case m.EvictAbandoned() | m.UnloadAbandoned():
            return _abandoned(pool, event)
        case m.UsageRecorded():
            return _usage_recorded(pool, event, at_ms)
        case m.EvictFinished() | m.UnloadFinished():
            return pool  # told to people: worker.exited has freed the slot
        case _:
            assert_never(event)


# --- loading ----------------------------------------------------------------------


def _load_started(pool: Pool, event: m.LoadStarted, at_ms: int) -> Pool:
    key = event.model.key
    assert key not in pool.slots, "one slot a model"
    tenant = Tenant(
        model=event.model,
        worker=event.worker,
        reserved_bytes=event.claim_bytes,
        kv_tokens=event.kv_tokens,
        rows_max=event.rows_max,
        ttl_ms=event.ttl_ms,
        ttl_asked=event.ttl_asked,
        over_budget=event.over_budget,
        asked_by=event.asked_by,
        used_at_ms=event.used_at_ms,
        kept=event.reason in ("load", "restore") or key in pool.kept or key in pool.pins,
    )
    slot = Loading(tenant=tenant, reason=event.reason, since_ms=at_ms, progress_at_ms=at_ms)
    return replace(
        put(pool, slot),
        spare=replace(pool.spare, name=None, failures=0, retry_at_ms=0),  # taken, if there was one
        workers_started=pool.workers_started + 1,
        workers={**pool.workers, event.worker: key},
        kept=without(pool.kept, key),
        wishes=tuple(w for w in pool.wishes if w.option.model.key != key),
    )


def _worker_spawned(pool: Pool, event: m.WorkerSpawned) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    process = Process(pid=event.pid, start_time=event.start_time, boot_id=event.boot_id)
    return put(pool, replace(slot, tenant=replace(slot.tenant, process=process)))


def _load_ready(pool: Pool, event: m.LoadReady, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Loading)
    used_at_ms = at_ms if slot.tenant.used_at_ms is None else slot.tenant.used_at_ms
    service = Service(
        context_tokens=event.context_tokens,
        loaded_at_ms=at_ms,
        last_used_at_ms=used_at_ms,
        recorded_use_at_ms=used_at_ms,
    )
    key = slot.tenant.model.key
    tenant = replace(slot.tenant, measured_bytes=event.measured_bytes)
    # From the decision on: who waits for a load also waits for its process and its imports.
    learned = Learned(load_ms=at_ms - slot.since_ms, measured_bytes=event.measured_bytes)
    failures = pool.failures.get(key)
    if failures is not None and not failures.crashed_at_ms and not failures.quarantined:
        pool = replace(pool, failures=without(pool.failures, key))
    pool = replace(pool, learned={**pool.learned, key: learned})
    return put(pool, Idle(tenant=tenant, service=service))


def _load_failed(pool: Pool, event: m.LoadFailed, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Loading)
    blameless = event.reason in ("crashed", "daemon_restarted")
    tenant = replace(slot.tenant, kept=slot.tenant.kept and blameless)
    pool = put(pool, Stopping(tenant=tenant, since_ms=at_ms, why="failed", evicting=False))
    return failed(pool, tenant.model, event.reason, event.message, at_ms, loading=True)


def _worker_adopted(pool: Pool, event: m.WorkerAdopted) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    return put(
        pool, replace(slot, tenant=replace(slot.tenant, measured_bytes=event.measured_bytes))
    )


def _usage_recorded(pool: Pool, event: m.UsageRecorded, at_ms: int) -> Pool:
    slot = pool.slots.get(event.key)
    if slot is None or isinstance(slot, Loading):
        return pool
    slot = replace(slot, tenant=replace(slot.tenant, waits=m.Waits()))
    used_at_ms = _last_use_ms(event, at_ms)
    if isinstance(slot, Draining | Stopping):
        used_at_ms = max(used_at_ms, slot.tenant.used_at_ms or 0)
        return put(pool, replace(slot, tenant=replace(slot.tenant, used_at_ms=used_at_ms)))
    service = replace(
        slot.service,
        last_used_at_ms=max(slot.service.last_used_at_ms, used_at_ms),
        recorded_use_at_ms=max(slot.service.recorded_use_at_ms, used_at_ms),
    )
    return put(pool, replace(slot, service=service))


def _last_use_ms(event: m.UsageRecorded, at_ms: int) -> int:
    """The end of the last request in the window; of a window cut short, its own end."""
    if event.arrivals_dropped or not event.arrivals:
        return at_ms
    last_ms = max(offset_ms + hold_ms for offset_ms, hold_ms in event.arrivals)
    return min(at_ms - event.window_ms + last_ms, at_ms)


# --- leaving ----------------------------------------------------------------------


def _evict_started(pool: Pool, event: m.EvictStarted, at_ms: int) -> Pool:
    pool = _leaving(pool, event.worker, at_ms, event.reason, evicting=True)
    slot = pool.slot_of(event.worker)
    assert slot is not None
    key = slot.tenant.model.key
    clients = tuple(sorted({*slot.tenant.asked_by, *event.for_clients}))
    evictions = (*pool.evictions.get(key, ()), Eviction(at_ms=at_ms, clients=clients))
    return replace(pool, evictions={**pool.evictions, key: evictions[-EVICTIONS_KEPT:]})


def _leaving(pool: Pool, worker: str, at_ms: int, why: Leaving, *, evicting: bool) -> Pool:
    slot = pool.slot_of(worker)
    if isinstance(slot, Loading):  # a load that is cancelled has nothing to drain
        return put(pool, Stopping(tenant=slot.tenant, since_ms=at_ms, why=why, evicting=evicting))
    assert isinstance(slot, Idle), "only what is unused is asked to leave"
    tenant = replace(slot.tenant, used_at_ms=slot.service.recorded_use_at_ms)
    return put(
        pool,
        Draining(tenant=tenant, service=slot.service, since_ms=at_ms, why=why, evicting=evicting),
    )


def _abandoned(pool: Pool, event: m.EvictAbandoned | m.UnloadAbandoned) -> Pool:
    """Resident again. What runs there follows as running.changed: no log knows its end."""
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Draining)
    key = slot.tenant.model.key
    if slot.evicting:
        kept = pool.evictions.get(key, ())[:-1]
        pool = replace(pool, evictions={**pool.evictions, key: kept})
    return put(pool, Idle(tenant=slot.tenant, service=slot.service))


def _worker_exited(pool: Pool, event: m.WorkerExited, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    tenant = slot.tenant
    key = tenant.model.key
    pool = replace(
        pool, slots=without(pool.slots, key), workers=without(pool.workers, event.worker)
    )
    if not event.expected and event.exit_code != 0:
        message = f"its worker ended unexpectedly ({_how(event)})"
        pool = failed(pool, tenant.model, "crashed", message, at_ms, loading=False)
    if tenant.kept and _comes_back(pool, slot):
        used_at_ms = tenant.used_at_ms
        if isinstance(slot, Idle | Busy):
            used_at_ms = slot.service.recorded_use_at_ms
        kept = Kept(
            model=tenant.model,
            ttl_ms=tenant.ttl_ms,
            ttl_asked=tenant.ttl_asked,
            rows_max=tenant.rows_max,
            used_at_ms=at_ms if used_at_ms is None else used_at_ms,
        )
        pool = replace(pool, kept={**pool.kept, key: kept})
    return pool


def _comes_back(pool: Pool, slot: Loading | Idle | Busy | Draining | Stopping) -> bool:
    """Whether a model whose process ended is still one that people want in memory."""
    failures = pool.failures.get(slot.tenant.model.key)
    if failures is not None and failures.quarantined:
        return False
    if isinstance(slot, Draining | Stopping):
        return slot.why in ("shutdown", "failed")
    return True


def _how(event: m.WorkerExited) -> str:
    if event.signal is not None:
        return f"signal {event.signal}"
    return f"exit code {'unknown' if event.exit_code is None else event.exit_code}"
