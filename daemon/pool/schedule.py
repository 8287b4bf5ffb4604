"""The queue: who is served, what is loaded next, who must go, who waited too long."""

from typing import Final, assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.background import start_wish
from daemon.pool.budget import never_fits
from daemon.pool.draft import Draft
from daemon.pool.due import expire
from daemon.pool.eviction import Evict, Fits, Room, Wait, make_room
from daemon.pool.failure import failed_before, retry_at_ms
from daemon.pool.leaving import begin_eviction, begin_unload, relieve
from daemon.pool.loading import emit_load, expected_load_ms
from daemon.pool.refusing import refuse
from daemon.pool.state import Busy, Draining, Idle, Loading, Pool, Slot, Stopping
from daemon.wire.errors import Code

READ_ONLY_RETRY_MS: Final = 10_000
"""How often a log that could not be written is tried again."""


def settle(draft: Draft) -> None:
    """Bring the pool as far as it will go now: called after every change.

    Each round that changes anything ends a wait, moves it on along its finite chain, or
    empties or fills a slot, so the rounds come to an end.
    """
    while True:
        before = len(draft.events)
        expire(draft)
        _fail_stalled_loads(draft)
        _unload_for_stop(draft)
        relieve(draft)
        _serve_residents(draft)
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
    if not _is_resident(pool, possible) and len(pool.waiters) >= pool.limits.queue_max:
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
    wait_ms = 0
    for slot in pool.slots.values():
        if isinstance(slot, Loading):
            expected_ms = expected_load_ms(pool, slot.tenant.model.key)
            wait_ms += max(expected_ms - (now_ms - slot.since_ms), 1_000)
    cold = {w.option.model.key for w in pool.waiters} - pool.slots.keys()
    return wait_ms + sum(expected_load_ms(pool, key) for key in cold) or 1_000


def fail_load(draft: Draft, slot: Loading, reason: m.FailureReason, message: str) -> None:
    """A load has failed: retry it once if memory was short, else tell who waited."""
    # In a module of its own the retry would need the queue, and the queue the retry.
    from_failure(draft, slot, reason, message)


# --- serving ----------------------------------------------------------------------


def _is_resident(pool: Pool, waiter: m.Waiter) -> bool:
    return isinstance(pool.slots.get(waiter.option.model.key), Idle | Busy)


def _serve_residents(draft: Draft) -> None:
    for waiter in draft.pool.waiters:
        slot = draft.pool.slots.get(waiter.option.model.key)
        if isinstance(slot, Idle | Busy):
            _serve(draft, waiter, slot)
