"""The queue: who is served, what is loaded next, who must go, who waited too long."""

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.budget import claim_of, never_fits
from daemon.pool.draft import Draft
from daemon.pool.eviction import Evict, Fits, make_room
from daemon.pool.state import Busy, Draining, Failures, Idle, Loading, Pool, Slot, Stopping
from daemon.wire.errors import Code

LOAD_TIME_GUESS_MS = 30_000
"""Of a model that was never loaded before."""


def settle(draft: Draft) -> None:
    """Bring the queue as far as it will go now: called after every change."""
    _serve_residents(draft)
    _refuse_late(draft)
    _start_loads(draft)


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
    if not _resident(pool, possible) and len(pool.waiters) >= pool.limits.queue_max:
        draft.refuse(
            waiter.ticket,
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
    wait_ms = 0
    for slot in pool.slots.values():
        if isinstance(slot, Loading):
            expected_ms = expected_load_ms(pool, slot.tenant.model.key)
            wait_ms += max(expected_ms - (now_ms - slot.since_ms), 1_000)
    cold = {w.option.model.key for w in pool.waiters} - pool.slots.keys()
    return wait_ms + sum(expected_load_ms(pool, key) for key in cold) or 1_000


def expected_load_ms(pool: Pool, key: str) -> int:
    """Learned from this model's last load; a guess for one never loaded."""
    learned = pool.learned.get(key)
    return learned.load_ms if learned is not None else LOAD_TIME_GUESS_MS


# --- serving ----------------------------------------------------------------------


def _resident(pool: Pool, waiter: m.Waiter) -> bool:
    return isinstance(pool.slots.get(waiter.option.model.key), Idle | Busy)


def _serve_residents(draft: Draft) -> None:
    for waiter in draft.pool.waiters:
        slot = draft.pool.slots.get(waiter.option.model.key)
        if isinstance(slot, Idle | Busy):
            _serve(draft, waiter, slot)


def _serve(draft: Draft, waiter: m.Waiter, slot: Slot) -> None:
    worker, name = slot.tenant.worker, slot.tenant.model.name
    key = slot.tenant.model.key
    if waiter.pin and key not in draft.pool.pins:
        draft.emit(m.ModelPinned(key=key, model=name))
    waited_ms = draft.now_ms - waiter.since_ms
    if not waiter.lease:
        draft.emit(
            m.LoadAnswered(
                ticket=waiter.ticket,
                model=name,
                worker=worker,
                waited_ms=waited_ms,
                ttl_ms=waiter.ttl_ms,
            )
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
        waited_s = (draft.now_ms - waiter.since_ms) / 1000
        after_ms = retry_after_ms(draft.pool, draft.now_ms)
        if isinstance(draft.pool.slots.get(waiter.option.model.key), Loading):
            draft.refuse(
                waiter.ticket,
                Code.DEADLINE,
                f"{name} was still loading after {waited_s:.0f} s; the load goes on, ask again",
                retry_after_ms=after_ms,
            )
        else:
            draft.refuse(
                waiter.ticket,
                Code.BUSY,
                f"no room for {name} within {waited_s:.0f} s: models in use hold the memory; "
                "ask again, unload one, or raise pool.memory",
                retry_after_ms=after_ms,
            )


# --- loading ----------------------------------------------------------------------


def _start_loads(draft: Draft) -> None:
    """Cold models in order of arrival; the first that must wait for room holds the rest.

    A later, smaller request never takes the room that an earlier one waits for, so that
    nobody starves. A model in back-off does not hold others up.
    """
    tried: set[str] = set()
    for waiter in draft.pool.waiters:
        key = waiter.option.model.key
        if key in tried or _gone(draft.pool, waiter.ticket):
            continue
        tried.add(key)
        slot = draft.pool.slots.get(key)
        if isinstance(slot, Draining | Stopping):
            return  # its own earlier worker is leaving: wait for it, in order
        if slot is not None or _backing_off(draft.pool, key, draft.now_ms):
            continue
        loading = sum(isinstance(s, Loading) for s in draft.pool.slots.values())
        if loading >= draft.pool.limits.loads_max or not _start_load(draft, waiter):
            return


def _gone(pool: Pool, ticket: int) -> bool:
    return all(w.ticket != ticket for w in pool.waiters)


def _backing_off(pool: Pool, key: str, now_ms: int) -> bool:
    failures = pool.failures.get(key)
    return failures is not None and failures.retry_at_ms > now_ms


def _start_load(draft: Draft, waiter: m.Waiter) -> bool:
    """Start the load of ``waiter``'s model, or make room for it; False: it must wait."""
    pool, option = draft.pool, waiter.option
    impossible = never_fits(pool, option)
    if impossible is not None and not waiter.over_budget:
        # True of nobody at admission; a pin or a new limit can make it true later.
        _refuse_for_memory(draft, waiter, impossible)
        return True
    room = make_room(pool, option, draft.now_ms - waiter.since_ms, draft.now_ms)
    match room:
        case Fits():
            _emit_load(draft, waiter, over_budget=False)
            return True
        case Evict():
            for victim in room.victims:
                _emit_eviction(draft, victim, option.model.name, room)
            return False
        case _:
            if impossible is not None:
                _emit_load(draft, waiter, over_budget=True)
                return True
            return False


def _emit_load(draft: Draft, waiter: m.Waiter, *, over_budget: bool) -> None:
    pool, option = draft.pool, waiter.option
    claim = claim_of(pool, option)
    asked_by = {w.client for w in pool.waiters if w.option.model.key == option.model.key}
    ttl_ms = option.terms.ttl_ms if waiter.ttl_ms is None else waiter.ttl_ms
    draft.emit(
        m.LoadStarted(
            model=option.model,
            worker=f"w{pool.workers_started + 1}",
            claim_bytes=claim.total_bytes,
            kv_tokens=claim.kv_tokens,
            rows_max=option.terms.rows_max,
            reason=waiter.reason,
            asked_by=tuple(sorted(asked_by)),
            passed_over=waiter.passed_over,
            ttl_ms=pool.limits.ttl_ms if ttl_ms is None else ttl_ms,
            over_budget=over_budget,
        )
    )
    if option.terms.pin and option.model.key not in pool.pins:
        draft.emit(m.ModelPinned(key=option.model.key, model=option.model.name))


def _emit_eviction(draft: Draft, victim: Idle, wanted: str, room: Evict) -> None:
    draft.emit(
        m.EvictStarted(
            worker=victim.tenant.worker,
            model=victim.tenant.model.name,
            reason="workers_max" if room.for_count else "memory",
            wanted=wanted,
            needed_bytes=room.needed_bytes,
            rule=room.rule,
            candidates=room.candidates,
        )
    )


# --- refusing ---------------------------------------------------------------------


def _first_possible(draft: Draft, waiter: m.Waiter) -> m.Waiter | None:
    """``waiter`` at the first option that may be tried; None once it has been refused."""
    while True:
        refusal = _refusal(draft.pool, waiter)
        if refusal is None:
            return waiter
        code, message = refusal
        if not waiter.rest:
            _refuse_finally(draft, waiter, code, message)
            return None
        waiter = _next_option(waiter, message)


def _refusal(pool: Pool, waiter: m.Waiter) -> tuple[Code, str] | None:
    """Why the waiter's present option cannot be tried at all."""
    model = waiter.option.model
    if model.key in pool.slots:
        return None
    failures = pool.failures.get(model.key)
    if failures is not None:
        refusal = _failed_before(model, failures)
        if refusal is not None:
            return refusal
    impossible = never_fits(pool, waiter.option)
    if impossible is not None and not waiter.over_budget:
        return Code.OVER_BUDGET, impossible
    return None


def _failed_before(model: m.Model, failures: Failures) -> tuple[Code, str] | None:
    if failures.quarantined:
        message = (
            f"{model.name} is quarantined after {len(failures.crashed_at_ms)} crashes: "
            f"{failures.message}. `mlxctl unquarantine {model.name}` lets it try again"
        )
        return Code.QUARANTINED, message
    if failures.reason == "incompatible" and failures.identity == model.identity:
        message = (
            f"{model.name} cannot be loaded: {failures.message}. "
            "It is tried again once its files change"
        )
        return Code.INCOMPATIBLE, message
    return None


def _pass_over(draft: Draft, waiter: m.Waiter, code: Code, message: str) -> None:
    """Move ``waiter`` to its next usable option, or refuse it."""
    if not waiter.rest:
        draft.refuse(waiter.ticket, code, message, retry_after_ms=_after_failure_ms(draft, waiter))
        return
    possible = _first_possible(draft, _next_option(waiter, message))
    if possible is not None:
        draft.emit(m.WaiterMoved(waiter=possible))


def _after_failure_ms(draft: Draft, waiter: m.Waiter) -> int | None:
    failures = draft.pool.failures.get(waiter.option.model.key)
    if failures is None or failures.retry_at_ms <= draft.now_ms:
        return None
    return failures.retry_at_ms - draft.now_ms


def _next_option(waiter: m.Waiter, why: str) -> m.Waiter:
    passed = m.PassedOver(model=waiter.option.model.name, why=why)
    return replace(
        waiter,
        option=waiter.rest[0],
        rest=waiter.rest[1:],
        passed_over=(*waiter.passed_over, passed),
    )


def _refuse_finally(draft: Draft, waiter: m.Waiter, code: Code, message: str) -> None:
    if code is Code.OVER_BUDGET:
        _refuse_for_memory(draft, waiter, message)
        return
    draft.refuse(waiter.ticket, code, _with_history(waiter, message))


def _refuse_for_memory(draft: Draft, waiter: m.Waiter, message: str) -> None:
    model = waiter.option.model
    draft.emit(
        m.RequestRefused(
            key=model.key,
            model=model.name,
            code=Code.OVER_BUDGET.value,
            client=waiter.client,
            message=message,
            needed_bytes=claim_of(draft.pool, waiter.option).total_bytes,
            budget_bytes=draft.pool.limits.budget_bytes,
        )
    )
    draft.refuse(waiter.ticket, Code.OVER_BUDGET, _with_history(waiter, message))


def _with_history(waiter: m.Waiter, message: str) -> str:
    passed = "; ".join(f"{p.model}: {p.why}" for p in waiter.passed_over)
    return f"{message} (passed over before: {passed})" if passed else message
