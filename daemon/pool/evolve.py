"""``evolve``: believe an event. It asserts, and never refuses."""

from typing import TypeVar, assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.state import (
    Busy,
    Draining,
    Failures,
    Idle,
    Learned,
    Lease,
    Loading,
    Pool,
    Process,
    Service,
    Slot,
    Stopping,
    Tenant,
    UnloadWaiter,
)

T = TypeVar("T")

BACK_OFF_FIRST_MS = 1_000
BACK_OFF_MAX_MS = 300_000


def evolve(pool: Pool, event: m.Event, at_ms: int) -> Pool:
    """The pool once ``event`` is true, which it became at ``at_ms``."""
    if isinstance(event, m.Durable):
        return _durable(pool, event, at_ms)
    return _volatile(pool, event, at_ms)


def _durable(pool: Pool, event: m.DurableEvent, at_ms: int) -> Pool:
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
            return _draining(pool, event.worker, at_ms, evicting=True)
        case m.UnloadStarted():
            return _draining(pool, event.worker, at_ms, evicting=False)
        case m.EvictAbandoned() | m.UnloadAbandoned():
            return _abandoned(pool, event)
        case m.ModelPinned():
            return replace(pool, pins=pool.pins | {event.key})
        case m.ModelUnpinned():
            return replace(pool, pins=pool.pins - {event.key})
        case m.ModelQuarantined():
            failures = replace(pool.failures[event.key], quarantined=True)
            return replace(pool, failures={**pool.failures, event.key: failures})
        case m.ModelUnquarantined():
            return replace(pool, failures=_without(pool.failures, event.key))
        case m.DaemonStarted():
            return replace(pool, generation=event.generation)
        case (
            m.EvictFinished()
            | m.UnloadFinished()
            | m.DaemonStopped()
            | m.ClockJumped()
            | m.ConfigChanged()
            | m.RequestRefused()
            | m.ThrashNoticed()
            | m.MemoryPressure()
            | m.MemoryResidue()
            | m.UsageRecorded()
            | m.SafeModeEntered()
            | m.SafeModeLeft()
            | m.LogTailLost()
        ):
            return pool  # told to people; the pool itself does not change
        case _:
            assert_never(event)


def _volatile(pool: Pool, event: m.VolatileEvent, at_ms: int) -> Pool:
    match event:
        case m.WaiterQueued():
            return replace(pool, waiters=(*pool.waiters, event.waiter))
        case m.WaiterMoved():
            moved = event.waiter
            waiters = tuple(moved if w.ticket == moved.ticket else w for w in pool.waiters)
            return replace(pool, waiters=waiters)
        case m.WaiterLeft() | m.TicketRefused():
            return _without_ticket(pool, event.ticket)
        case m.LeaseGranted():
            return _lease_granted(pool, event, at_ms)
        case m.LeaseEnded():
            return _lease_ended(pool, event, at_ms)
        case m.LoadAnswered():
            pool = _without_ticket(pool, event.ticket)
            return _touched(pool, event.worker, at_ms, event.ttl_ms)
        case m.UnloadAwaited():
            slot = pool.slot_of(event.worker)
            assert slot is not None
            waiter = UnloadWaiter(
                ticket=event.ticket, worker=event.worker, name=slot.tenant.model.name
            )
            return replace(pool, unload_waiters=(*pool.unload_waiters, waiter))
        case m.UnloadAnswered():
            return _without_ticket(pool, event.ticket)
        case m.LoadProgressed():
            slot = pool.slot_of(event.worker)
            assert isinstance(slot, Loading)
            return _put(pool, replace(slot, done_bytes=event.done_bytes, progress_at_ms=at_ms))
        case m.RunningChanged():
            return _running_changed(pool, event, at_ms)
        case m.MeasuredChanged():
            slot = pool.slot_of(event.worker)
            assert slot is not None
            tenant = replace(slot.tenant, measured_bytes=event.measured_bytes)
            return _put(pool, replace(slot, tenant=tenant))
        case m.DrainConfirmed():
            slot = pool.slot_of(event.worker)
            assert isinstance(slot, Draining)
            return _put(
                pool,
                Stopping(tenant=slot.tenant, since_ms=slot.since_ms, evicting=slot.evicting),
            )
        case m.StrayReported():
            return pool
        case m.StopBegan():
            return replace(pool, stopping=event.reason)
        case _:
            assert_never(event)


# --- slots ----------------------------------------------------------------------


def _put(pool: Pool, slot: Slot) -> Pool:
    return replace(pool, slots={**pool.slots, slot.tenant.model.key: slot})


def _load_started(pool: Pool, event: m.LoadStarted, at_ms: int) -> Pool:
    assert event.model.key not in pool.slots, "one slot a model"
    tenant = Tenant(
        model=event.model,
        worker=event.worker,
        reserved_bytes=event.claim_bytes,
        kv_tokens=event.kv_tokens,
        rows_max=event.rows_max,
        ttl_ms=event.ttl_ms,
        over_budget=event.over_budget,
    )
    slot = Loading(tenant=tenant, reason=event.reason, since_ms=at_ms, progress_at_ms=at_ms)
    return replace(_put(pool, slot), workers_started=pool.workers_started + 1)


def _worker_spawned(pool: Pool, event: m.WorkerSpawned) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    process = Process(pid=event.pid, start_time=event.start_time, boot_id=event.boot_id)
    return _put(pool, replace(slot, tenant=replace(slot.tenant, process=process)))


def _load_ready(pool: Pool, event: m.LoadReady, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Loading)
    service = Service(
        context_tokens=event.context_tokens, loaded_at_ms=at_ms, last_used_at_ms=at_ms
    )
    tenant = replace(slot.tenant, measured_bytes=event.measured_bytes)
    learned = Learned(load_ms=event.load_ms, measured_bytes=event.measured_bytes)
    pool = replace(pool, learned={**pool.learned, tenant.model.key: learned})
    return _put(pool, Idle(tenant=tenant, service=service))


def _load_failed(pool: Pool, event: m.LoadFailed, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Loading)
    pool = _put(pool, Stopping(tenant=slot.tenant, since_ms=at_ms, evicting=None))
    return _failed(pool, slot.tenant.model, event.reason, event.message, at_ms)


def _worker_adopted(pool: Pool, event: m.WorkerAdopted) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    return _put(
        pool, replace(slot, tenant=replace(slot.tenant, measured_bytes=event.measured_bytes))
    )


def _worker_exited(pool: Pool, event: m.WorkerExited, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert slot is not None
    key = slot.tenant.model.key
    pool = replace(pool, slots=_without(pool.slots, key))
    if event.expected:
        return pool
    message = f"its worker ended unexpectedly (exit code {event.exit_code}, signal {event.signal})"
    return _failed(pool, slot.tenant.model, "crashed", message, at_ms)


def _failed(pool: Pool, model: m.Model, reason: m.FailureReason, message: str, at_ms: int) -> Pool:
    before = pool.failures.get(model.key)
    crashes = before.crashed_at_ms if before is not None else ()
    retry_at_ms = 0
    if reason == "crashed":
        oldest_ms = at_ms - pool.limits.crash_window_ms
        crashes = (*(t for t in crashes if t > oldest_ms), at_ms)[-pool.limits.crashes_max :]
        retry_at_ms = at_ms + back_off_ms(len(crashes))
    failures = Failures(
        reason=reason,
        message=message,
        identity=model.identity,
        crashed_at_ms=crashes,
        retry_at_ms=retry_at_ms,
        quarantined=before is not None and before.quarantined,
    )
    return replace(pool, failures={**pool.failures, model.key: failures})


def back_off_ms(crashes: int) -> int:
    """How long to wait after so many crashes in the window: 1 s, doubling to 300 s.

    The first crash costs nothing: its next request may try at once.
    """
    if crashes <= 1:
        return 0
    return min(BACK_OFF_FIRST_MS << min(crashes - 2, 20), BACK_OFF_MAX_MS)


def _draining(pool: Pool, worker: str, at_ms: int, *, evicting: bool) -> Pool:
    slot = pool.slot_of(worker)
    if isinstance(slot, Loading):  # a load that is cancelled has nothing to drain
        return _put(pool, Stopping(tenant=slot.tenant, since_ms=at_ms, evicting=evicting))
    assert isinstance(slot, Idle)
    return _put(
        pool,
        Draining(tenant=slot.tenant, service=slot.service, since_ms=at_ms, evicting=evicting),
    )


def _abandoned(pool: Pool, event: m.EvictAbandoned | m.UnloadAbandoned) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Draining)
    return _put(pool, _resident(slot.tenant, slot.service, frozenset(), event.running))


def _resident(
    tenant: Tenant, service: Service, leases: frozenset[str], running: int
) -> Idle | Busy:
    if leases or running:
        return Busy(tenant=tenant, service=service, leases=leases, running=running)
    return Idle(tenant=tenant, service=service)


# --- leases and requests ----------------------------------------------------------


def _lease_granted(pool: Pool, event: m.LeaseGranted, at_ms: int) -> Pool:
    pool = _touched(_without_ticket(pool, event.ticket), event.worker, at_ms, event.ttl_ms)
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Idle | Busy), "a lease is granted only while the worker is up"
    leases = slot.leases if isinstance(slot, Busy) else frozenset()
    running = slot.running if isinstance(slot, Busy) else 0
    lease = Lease(key=slot.tenant.model.key, client=event.client, granted_at_ms=at_ms)
    pool = replace(
        pool,
        leases={**pool.leases, event.lease: lease},
        leases_granted=pool.leases_granted + 1,
    )
    return _put(pool, _resident(slot.tenant, slot.service, leases | {event.lease}, running))


def _lease_ended(pool: Pool, event: m.LeaseEnded, at_ms: int) -> Pool:
    lease = pool.leases[event.lease]
    pool = replace(pool, leases=_without(pool.leases, event.lease))
    slot = pool.slots.get(lease.key)
    if not isinstance(slot, Busy):
        return pool
    service = replace(slot.service, last_used_at_ms=at_ms)
    return _put(pool, _resident(slot.tenant, service, slot.leases - {event.lease}, slot.running))


def _running_changed(pool: Pool, event: m.RunningChanged, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Idle | Busy)
    named = {name: pool.leases[name] for name in event.leases if name in pool.leases}
    if named:
        used = {name: replace(lease, used=True) for name, lease in named.items()}
        pool = replace(pool, leases={**pool.leases, **used})
    leases = slot.leases if isinstance(slot, Busy) else frozenset()
    service = replace(slot.service, last_used_at_ms=at_ms)
    return _put(pool, _resident(slot.tenant, service, leases, event.running))


def _touched(pool: Pool, worker: str, at_ms: int, ttl_ms: int | None) -> Pool:
    slot = pool.slot_of(worker)
    assert isinstance(slot, Idle | Busy)
    tenant = slot.tenant if ttl_ms is None else replace(slot.tenant, ttl_ms=ttl_ms)
    service = replace(slot.service, last_used_at_ms=at_ms)
    return _put(pool, replace(slot, tenant=tenant, service=service))


def _without_ticket(pool: Pool, ticket: int) -> Pool:
    return replace(
        pool,
        waiters=tuple(w for w in pool.waiters if w.ticket != ticket),
        unload_waiters=tuple(w for w in pool.unload_waiters if w.ticket != ticket),
    )


def _without(mapping: dict[str, T], key: str) -> dict[str, T]:
    return {k: v for k, v in mapping.items() if k != key}
