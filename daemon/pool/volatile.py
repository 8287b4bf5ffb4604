"""``evolve`` for what only the live pool knows: queue, leases, requests, conditions."""

from bisect import bisect_right
from typing import assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.facts import without
from daemon.pool.state import (
    Busy,
    Draining,
    Idle,
    Lease,
    Loading,
    Pool,
    Pressure,
    Refusals,
    Stopping,
    UnloadWaiter,
    put,
    resident,
)


def evolve_volatile(pool: Pool, event: m.VolatileEvent, at_ms: int) -> Pool:
    """The pool once ``event`` is true."""
    if isinstance(event, m.QueueEvent):
        return _queue_event(pool, event, at_ms)
    if isinstance(event, m.UseEvent):
        return _use_event(pool, event, at_ms)
    return _condition_event(pool, event, at_ms)


def _queue_event(pool: Pool, event: m.QueueEvent, at_ms: int) -> Pool:
    match event:
        case m.WaiterQueued():
            return _waiter_queued(pool, event.waiter)
        case m.WaiterMoved():
            moved = event.waiter
            waiters = tuple(moved if w.ticket == moved.ticket else w for w in pool.waiters)
            return replace(pool, waiters=waiters)
        case m.RoomAwaited():
            return _room_awaited(pool, event.model.key)
        case m.LoadAnswered():
            pool = _without_ticket(pool, event.ticket)
            return _touched(pool, event.worker, at_ms, None)
        case m.UnloadAwaited():
            slot = pool.slot_of(event.worker)
            assert slot is not None
            waiter = UnloadWaiter(
                ticket=event.ticket, worker=event.worker, name=slot.tenant.model.name
            )
            return replace(pool, unload_waiters=(*pool.unload_waiters, waiter))
        case m.WaiterLeft() | m.TicketRefused() | m.UnloadAnswered() | m.TicketDone():
            return _without_ticket(pool, event.ticket)
        case m.RefusalCounted():
            return _refusal_counted(pool, event)
        case m.WishesAdded():
            return replace(pool, wishes=(*pool.wishes, *event.wishes))
        case m.WishDropped():
            wishes = tuple(w for w in pool.wishes if w.option.model.key != event.key)
            return replace(pool, wishes=wishes)
        case _:
            assert_never(event)


def _waiter_queued(pool: Pool, waiter: m.Waiter) -> Pool:
    place = bisect_right(pool.waiters, waiter.turn_ms, key=lambda w: w.turn_ms)
    return replace(pool, waiters=(*pool.waiters[:place], waiter, *pool.waiters[place:]))


def _room_awaited(pool: Pool, key: str) -> Pool:
    waiters = (
        replace(w, room_awaited=True) if w.option.model.key == key else w for w in pool.waiters
    )
    return replace(pool, waiters=tuple(waiters))


def _use_event(pool: Pool, event: m.UseEvent, at_ms: int) -> Pool:
    match event:
        case m.LeaseGranted():
            return _lease_granted(pool, event, at_ms)
        case m.LeaseEnded():
            return _lease_ended(pool, event, at_ms)
        case m.LoadProgressed():
            slot = pool.slot_of(event.worker)
            assert isinstance(slot, Loading)
            return put(pool, replace(slot, done_bytes=event.done_bytes, progress_at_ms=at_ms))
        case m.RunningChanged():
            return _running_changed(pool, event, at_ms)
        case m.MeasuredChanged():
            slot = pool.slot_of(event.worker)
            assert slot is not None
            tenant = replace(slot.tenant, measured_bytes=event.measured_bytes)
            return put(pool, replace(slot, tenant=tenant))
        case m.SpeedChanged():
            slot = pool.slot_of(event.worker)
            assert slot is not None
            tenant = replace(slot.tenant, tokens_per_s=event.tokens_per_s)
            return put(pool, replace(slot, tenant=tenant))
        case m.DrainConfirmed():
            slot = pool.slot_of(event.worker)
            assert isinstance(slot, Draining)
            stopping = Stopping(
                tenant=slot.tenant, since_ms=slot.since_ms, why=slot.why, evicting=slot.evicting
            )
            return put(pool, stopping)
        case m.StrayReported():
            return pool
        case _:
            assert_never(event)


def _condition_event(pool: Pool, event: m.ConditionEvent, at_ms: int) -> Pool:
    match event:
        case m.StopBegan():
            return replace(pool, stopping=event.reason, detaching=event.detach, wishes=())
        case m.PressureReported():
            return replace(pool, pressure_reported=Pressure(level=event.level, since_ms=at_ms))
        case m.SpareStarted():
            spare = replace(pool.spare, name=event.spare, started=pool.spare.started + 1)
            return replace(pool, spare=spare)
        case m.SpareEnded():
            failures = pool.spare.failures + 1 if event.why else 0
            spare = replace(pool.spare, name=None, failures=failures, retry_at_ms=event.retry_at_ms)
            return replace(pool, spare=spare)
        case m.LogBlocked():
            return replace(pool, read_only=event.reason)
        case m.LogWritable():
            return replace(pool, read_only=None)
        case _:
            assert_never(event)


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
    tenant = slot.tenant
    if event.waited_ms:
        tenant = replace(tenant, waits=tenant.waits.and_one(event.waited_ms))
    return put(pool, resident(tenant, slot.service, leases | {event.lease}, running))


def _lease_ended(pool: Pool, event: m.LeaseEnded, at_ms: int) -> Pool:
    lease = pool.leases[event.lease]
    pool = replace(pool, leases=without(pool.leases, event.lease))
    slot = pool.slots.get(lease.key)
    assert isinstance(slot, Busy), "a lease holds its worker"
    service = replace(slot.service, last_used_at_ms=at_ms)
    return put(pool, resident(slot.tenant, service, slot.leases - {event.lease}, slot.running))


def _running_changed(pool: Pool, event: m.RunningChanged, at_ms: int) -> Pool:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Idle | Busy)
    leases = slot.leases if isinstance(slot, Busy) else frozenset()
    used = {name: replace(pool.leases[name], used=True) for name in event.leases if name in leases}
    if used:
        pool = replace(pool, leases={**pool.leases, **used})
    service = replace(slot.service, last_used_at_ms=at_ms)
    return put(pool, resident(slot.tenant, service, leases, event.running))


def _touched(pool: Pool, worker: str, at_ms: int, ttl_ms: m.AskedIdle) -> Pool:
    slot = pool.slot_of(worker)
    assert isinstance(slot, Idle | Busy)
    service = replace(slot.service, last_used_at_ms=at_ms)
    if ttl_ms is not None:
        service = replace(service, ttl_asked_ms=ttl_ms)
    return put(pool, replace(slot, service=service))


def _refusal_counted(pool: Pool, event: m.RefusalCounted) -> Pool:
    refused = event.refused
    entry = pool.refusals[refused.key, refused.code]
    entry = Refusals(
        recorded_at_ms=entry.recorded_at_ms, uncounted=entry.uncounted + 1, last=refused
    )
    return replace(pool, refusals={**pool.refusals, (refused.key, refused.code): entry})


def _without_ticket(pool: Pool, ticket: int) -> Pool:
    return replace(
        pool,
        waiters=tuple(w for w in pool.waiters if w.ticket != ticket),
        unload_waiters=tuple(w for w in pool.unload_waiters if w.ticket != ticket),
    )
