"""A load that failed: recorded, retried once if memory was short, told to all who waited."""

from typing import Final

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.failure import crashes_too_many
from daemon.pool.leaving import evict_all_idle
from daemon.pool.schedule import load_ended_badly
from daemon.pool.state import Loading
from daemon.wire.errors import Code

MESSAGE_CHARS_MAX: Final = 2_000
"""Of what a worker says: records and frames are bounded."""

_CODES: Final[dict[m.FailureReason, Code]] = {
    "incompatible": Code.INCOMPATIBLE,
    "out_of_memory": Code.OVER_BUDGET,
    "timeout": Code.WORKER_FAILED,
    "crashed": Code.WORKER_FAILED,
    "daemon_restarted": Code.WORKER_FAILED,
}


def fail_load(draft: Draft, slot: Loading, reason: m.FailureReason, message: str) -> None:
    """The load in ``slot`` is over."""
    model = slot.tenant.model
    message = message[:MESSAGE_CHARS_MAX]
    draft.emit(
        m.LoadFailed(worker=slot.tenant.worker, model=model.name, reason=reason, message=message)
    )
    quarantine_if_hopeless(draft, model)
    if reason == "daemon_restarted":
        return  # no fault of the model: whoever waits gets the next load
    if reason == "out_of_memory" and _retry(draft, slot):
        return
    load_ended_badly(
        draft, model.key, _CODES[reason], f"{model.name} could not be loaded: {message}"
    )


def fail_stalled_loads(draft: Draft) -> None:
    """Loads without progress for too long have failed."""
    stall_ms = draft.pool.limits.load_stall_ms
    for slot in draft.pool.slots.values():
        if isinstance(slot, Loading) and slot.progress_at_ms + stall_ms <= draft.now_ms:
            fail_load(draft, slot, "timeout", f"no progress for {stall_ms // 1000} s")


def quarantine_if_hopeless(draft: Draft, model: m.Model) -> None:
    """After too many crashes it is not tried again before a person says so."""
    crashes = crashes_too_many(draft.pool, model.key, draft.now_ms)
    if crashes is not None:
        message = draft.pool.failures[model.key].message
        draft.emit(
            m.ModelQuarantined(key=model.key, model=model.name, failures=crashes, message=message)
        )


def _retry(draft: Draft, slot: Loading) -> bool:
    """Make all the room there is for one more try; False if it would change nothing."""
    pool, model = draft.pool, slot.tenant.model
    waiting = [w for w in pool.waiters if w.option.model.key == model.key]
    if slot.reason == "retry" or not waiting or pool.read_only is not None:
        return False
    evicted = evict_all_idle(
        draft,
        "memory",
        "out of memory: all that may go, for one more try",
        wanted=model.name,
        needed_bytes=slot.tenant.claim_bytes,
        for_clients=tuple(sorted({w.client for w in waiting})),
    )
    if not evicted:
        return False
    for waiter in waiting:
        draft.emit(m.WaiterMoved(waiter=replace(waiter, retried=True)))
    return True
