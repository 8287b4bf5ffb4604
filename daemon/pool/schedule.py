"""The queue: who is served, what is loaded next, who must go, who waited too long."""

from typing import Final, assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.background import start_wish
from daemon.pool.budget import never_fits
from daemon.pool.draft import Draft
from daemon.pool.due import expire
from daemon.pool.eviction import Evict, Fits, Wait, make_room
from daemon.pool.failure import failed_before, retry_at_ms
from daemon.pool.leaving import begin_eviction, relieve, unload_for_stop
from daemon.pool.loading import emit_load, expected_load_ms
from daemon.pool.refusing import refuse
from daemon.pool.shapes import idle_ms
from daemon.pool.state import (
    MIN_RESIDENCY_MS,
    PRESSURE_HOLD_MS,
    Busy,
    Draining,
    Idle,
    Loading,
    Pool,
    Slot,
    Stopping,
    Tenant,
    has_asked_ttl,
)
from daemon.wire.errors import Code

READ_ONLY_RETRY_MS: Final = 10_000
"""How often a log that could not be written is tried again."""


def settle(draft: Draft) -> None:
    """Bring the pool as far as it will go now: called after every change.

    Each round that changes anything ends a wait, moves it on along its finite chain, or
    empties or fills a slot, so the rounds come to an end.
    """
    while True:
        _serve_residents(draft)  # before anything may take from a waiter what it waited for
        before = len(draft.events)
        expire(draft)
        unload_for_stop(draft)
        relieve(draft)
        _pass_over_impossible(draft)
        _refuse_late(draft)
        _start_loads(draft)
        start_wish(draft)
        if len(draft.events) == before:
            return


def admit(draft: Draft, waiter: m.Waiter) -> None:
    """Take a new request: serve it, queue it, or refuse it with the reason."""
    pool = draft.pool
    if pool.stopping is not None:
        draft.refuse(
            waiter.ticket, Code.SHUTTING_DOWN, "mlxd is shutting down; ask again once it is back"
        )
        return
    possible = _first_possible(draft, waiter)
    if possible is None:
        return
    resident = isinstance(pool.slots.get(possible.option.model.key), Idle | Busy)
    if not resident and len(pool.waiters) >= pool.limits.queue_max:
        refuse(
            draft,
            possible,
            Code.QUEUE_FULL,
            f"{len(pool.waiters)} requests already wait for a load; try again later",
            retry_after_ms=retry_after_ms(pool, draft.now_ms),
        )
        return
    draft.emit(m.WaiterQueued(waiter=possible))


def load_ended_badly(draft: Draft, key: str, code: Code, message: str) -> None:
    """Everyone who waited for this load goes on to a fallback or gets the same answer."""
    for waiter in draft.pool.waiters:
        if waiter.option.model.key == key:
            _pass_over(draft, waiter, code, message)


def retry_after_ms(pool: Pool, now_ms: int) -> int:
    """When the loads in flight and in line will be done, from learned load times."""
    wait_ms = 0 if pool.pressure == "normal" else PRESSURE_HOLD_MS
    for slot in pool.slots.values():
        if isinstance(slot, Loading):
            expected_ms = expected_load_ms(pool, slot.tenant.model.key)
            wait_ms += max(expected_ms - (now_ms - slot.since_ms), 1_000)
    cold = {w.option.model.key for w in pool.waiters} - pool.slots.keys()
    return wait_ms + sum(expected_load_ms(pool, key) for key in cold) or 1_000


# --- serving ----------------------------------------------------------------------


def _serve_residents(draft: Draft) -> None:
    for waiter in draft.pool.waiters:
        slot = draft.pool.slots.get(waiter.option.model.key)
        if isinstance(slot, Idle | Busy) and (waiter.lease or _meet_terms(draft, waiter, slot)):
            _serve(draft, waiter, slot.tenant)


def _meet_terms(draft: Draft, waiter: m.Waiter, slot: Idle | Busy) -> bool:
    """What a load asks of a model beyond being there, recorded; False while it cannot be.

    A load by a person also makes the model one of theirs. Where that cannot be recorded
    they get it all the same: they asked for it to be there, and it is.
    """
    key, name = slot.tenant.model.key, slot.tenant.model.name
    changes = _changed_terms(draft.pool, waiter, slot)
    if draft.pool.read_only is not None:
        return not changes
    for change in changes:
        draft.emit(change)
    if waiter.reason == "load" and not slot.tenant.kept and not waiter.pin:
        draft.emit(m.ModelKept(key=key, model=name))
    return True


def _changed_terms(pool: Pool, waiter: m.Waiter, slot: Slot) -> list[m.ModelEvent]:
    """Pin and TTL that a load asks for, as far as they are not so yet."""
    key, name = slot.tenant.model.key, slot.tenant.model.name
    changes: list[m.ModelEvent] = []
    if waiter.pin and key not in pool.pins:
        changes.append(m.ModelPinned(key=key, model=name))
    if waiter.ttl_ms is not None and not has_asked_ttl(slot, idle_ms(waiter.ttl_ms)):
        ttl_ms = idle_ms(waiter.ttl_ms)
        changes.append(m.ModelTtlChanged(key=key, model=name, ttl_ms=ttl_ms))
    return changes


def _serve(draft: Draft, waiter: m.Waiter, tenant: Tenant) -> None:
    worker, name = tenant.worker, tenant.model.name
    waited_ms = draft.now_ms - waiter.since_ms
    if not waiter.lease:
        draft.emit(
            m.LoadAnswered(ticket=waiter.ticket, model=name, worker=worker, waited_ms=waited_ms)
        )
        return
    lease = f"g{draft.pool.generation}.{draft.pool.leases_granted + 1}"
    draft.emit(
        m.LeaseGranted(
            ticket=waiter.ticket,
            lease=lease,
            client=waiter.client,
            model=name,
            worker=worker,
            waited_ms=waited_ms,
            ttl_ms=waiter.ttl_ms,
        )
    )


def _refuse_late(draft: Draft) -> None:
    for waiter in draft.pool.waiters:
        if waiter.deadline_at_ms is None or waiter.deadline_at_ms > draft.now_ms:
            continue
        name = waiter.option.model.name
        waited_ms = draft.now_ms - waiter.since_ms
        waited = f"{waited_ms / 1000:.0f} s" if waited_ms >= 1000 else f"{waited_ms} ms"
        after_ms = retry_after_ms(draft.pool, draft.now_ms)
        if isinstance(draft.pool.slots.get(waiter.option.model.key), Loading):
            code = Code.DEADLINE
            message = f"{name} was still loading after {waited}; the load goes on, ask again"
        else:
            code = Code.BUSY
            held = what_holds(draft.pool, waiter, draft.now_ms)
            message = f"{name} was not loaded within {waited}: {held}"
        refuse(draft, waiter, code, message, retry_after_ms=after_ms)


def what_holds(pool: Pool, waiter: m.Waiter, now_ms: int) -> str:
    """What a request that is not served waits for, and what helps."""
    key = waiter.option.model.key
    if pool.pressure != "normal":
        return "the machine is short of memory; ask again, or unload a model"
    if retry_at_ms(pool, key) > now_ms:
        wait_s = (retry_at_ms(pool, key) - now_ms) / 1000
        return f"it crashed, and is not tried again for {wait_s:.0f} s; ask again then"
    if any(isinstance(slot, Loading) for slot in pool.slots.values()):
        return "another model is being loaded; ask again"
    if any(isinstance(slot, Draining | Stopping) for slot in pool.slots.values()):
        return "models that are being unloaded are not gone yet; ask again"
    if isinstance(make_room(pool, waiter.option, 0, now_ms), Fits | Evict):
        if pool.waiters and pool.waiters[0].ticket != waiter.ticket:
            return "others wait for room before it; ask again"
        return "there was no time to begin its load; ask again, and wait for longer"
    room = make_room(pool, waiter.option, MIN_RESIDENCY_MS, now_ms)
    if isinstance(room, Evict):
        young = ", ".join(victim.tenant.model.name for victim in room.victims)
        return f"{young} was loaded a moment ago and may go soon; ask again"
    return "models in use hold the memory; ask again, unload one, or raise pool.memory"


# --- loading ----------------------------------------------------------------------


def _start_loads(draft: Draft) -> None:
    """Cold models in order of their turn; the first that must wait for room holds the rest.

    A smaller request never takes the room that one before it waits for, so that
    nobody starves. A model in back-off, or whose last worker is still leaving, does not
    hold others up: its own claim is still counted, so the room it leaves stays its own.
    Only a load that ran out of memory holds the room that was made for its retry.
    """
    if draft.pool.pressure != "normal" or draft.pool.read_only is not None:
        return
    tried: set[str] = set()
    for waiter in draft.pool.waiters:
        key = waiter.option.model.key
        if key in tried or not _waits(draft.pool, waiter.ticket):
            continue
        tried.add(key)
        slot = draft.pool.slots.get(key)
        if isinstance(slot, Draining | Stopping) and waiter.retried:
            return
        if retry_at_ms(draft.pool, key) > draft.now_ms:
            continue
        if slot is not None:
            if isinstance(slot, Draining | Stopping):
                _await_room(draft, waiter)
            continue
        if _loads_in_line(draft.pool) >= draft.pool.limits.loads_max:
            return
        if not _start_load(draft, waiter):
            return


def _waits(pool: Pool, ticket: int) -> bool:
    return any(w.ticket == ticket for w in pool.waiters)


def _loads_in_line(pool: Pool) -> int:
    """Loads in flight; those that nobody asked for hold nobody up."""
    return sum(
        isinstance(slot, Loading) and slot.reason not in ("preload", "restore")
        for slot in pool.slots.values()
    )


def _start_load(draft: Draft, waiter: m.Waiter) -> bool:
    """Start the load of ``waiter``'s model, or make room for it; False: it must wait."""
    waited_ms = draft.now_ms - waiter.since_ms
    room = make_room(draft.pool, waiter.option, waited_ms, draft.now_ms)
    over_budget = False
    if waiter.over_budget and isinstance(room, Wait) and not room.leaving:
        over_budget = True
        room = make_room(draft.pool, waiter.option, waited_ms, draft.now_ms, claim_bytes=0)
    match room:
        case Fits():
            _load_for(draft, waiter, over_budget=over_budget)
            return True
        case Evict():
            for victim in room.victims:
                begin_eviction(
                    draft,
                    victim,
                    "workers_max" if room.for_count else "memory",
                    rule=room.rule,
                    candidates=room.candidates,
                    wanted=waiter.option.model.name,
                    needed_bytes=room.needed_bytes,
                    for_clients=_askers(draft.pool, waiter),
                )
            return False
        case Wait():
            if room.leaving:
                _await_room(draft, waiter)
            return False
        case _:
            assert_never(room)


def _await_room(draft: Draft, waiter: m.Waiter) -> None:
    """Say once that only workers that stop keep the load from beginning.

    Nothing is said while others load: what is read for them comes first.
    """
    pool, model = draft.pool, waiter.option.model
    if any(isinstance(slot, Loading) for slot in pool.slots.values()):
        return
    if not any(w.room_awaited for w in pool.waiters if w.option.model.key == model.key):
        draft.emit(m.RoomAwaited(ticket=waiter.ticket, model=model))


def _load_for(draft: Draft, waiter: m.Waiter, *, over_budget: bool) -> None:
    emit_load(
        draft,
        waiter.option,
        "retry" if waiter.retried else waiter.reason,
        asked_by=_askers(draft.pool, waiter),
        passed_over=waiter.passed_over,
        asked_ttl_ms=None if waiter.lease else waiter.ttl_ms,
        over_budget=over_budget,
    )


def _askers(pool: Pool, waiter: m.Waiter) -> tuple[str, ...]:
    key = waiter.option.model.key
    return tuple(sorted({w.client for w in pool.waiters if w.option.model.key == key}))


# --- refusing ---------------------------------------------------------------------


def _pass_over_impossible(draft: Draft) -> None:
    """What was possible when it was asked may no longer be: a pin, a limit, a failure."""
    for waiter in draft.pool.waiters:
        refusal = _refusal(draft, waiter)
        if refusal is not None:
            _pass_over(draft, waiter, *refusal)


def _first_possible(draft: Draft, waiter: m.Waiter) -> m.Waiter | None:
    """``waiter`` at the first option that may be tried; None once it has been refused."""
    while True:
        refusal = _refusal(draft, waiter)
        if refusal is None:
            return waiter
        code, message = refusal
        if not waiter.rest:
            _refuse_failed(draft, waiter, code, message)
            return None
        waiter = _next_option(waiter, message)


def _refusal(draft: Draft, waiter: m.Waiter) -> tuple[Code, str] | None:
    """Why the waiter's present option cannot be tried at all."""
    pool, model = draft.pool, waiter.option.model
    if pool.read_only is not None and not _unrecorded(pool, waiter):
        return Code.READ_ONLY, read_only_message(pool)
    if model.key in pool.slots:
        return None
    failed = failed_before(pool, model)
    if failed is not None:
        return failed
    impossible = never_fits(pool, waiter.option, over_budget=waiter.over_budget)
    if impossible is not None:
        return Code.OVER_BUDGET, impossible
    return None


def _unrecorded(pool: Pool, waiter: m.Waiter) -> bool:
    """Whether ``waiter`` can be served without a record: its model is there, or coming."""
    slot = pool.slots.get(waiter.option.model.key)
    if not isinstance(slot, Loading | Idle | Busy):
        return False
    return waiter.lease or not _changed_terms(pool, waiter, slot)


def read_only_message(pool: Pool) -> str:
    """What is refused while the event log cannot be written, and why."""
    return (
        f"{pool.read_only}. Until the event log can be written, nothing is loaded, unloaded "
        "or changed"
    )


def _pass_over(draft: Draft, waiter: m.Waiter, code: Code, message: str) -> None:
    """Move ``waiter`` to its next usable option, or refuse it."""
    if not waiter.rest:
        _refuse_failed(draft, waiter, code, message)
        return
    possible = _first_possible(draft, _next_option(waiter, message))
    if possible is not None:
        draft.emit(m.WaiterMoved(waiter=possible))


def _refuse_failed(draft: Draft, waiter: m.Waiter, code: Code, message: str) -> None:
    after_ms = retry_at_ms(draft.pool, waiter.option.model.key) - draft.now_ms
    if code is Code.READ_ONLY:
        after_ms = READ_ONLY_RETRY_MS
    refuse(draft, waiter, code, message, retry_after_ms=after_ms if after_ms > 0 else None)


def _next_option(waiter: m.Waiter, why: str) -> m.Waiter:
    passed = m.PassedOver(model=waiter.option.model.name, why=why)
    return replace(
        waiter,
        option=waiter.rest[0],
        rest=waiter.rest[1:],
        passed_over=(*waiter.passed_over, passed),
        retried=False,
        room_awaited=False,
    )
