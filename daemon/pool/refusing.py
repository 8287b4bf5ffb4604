"""Refusals: the typed answer at once, the record at most once a minute a model and code."""

from typing import Final

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.budget import claim_of
from daemon.pool.draft import Draft
from daemon.pool.state import REFUSALS_EVERY_MS, Pool
from daemon.wire.errors import Code

_RECORDED: Final = frozenset(
    {
        Code.OVER_BUDGET,
        Code.QUARANTINED,
        Code.INCOMPATIBLE,
        Code.QUEUE_FULL,
        Code.BUSY,
        Code.DEADLINE,
    }
)
"""What memory, or a failing model, could not serve; the rest is told to the asker only."""


def refuse(
    draft: Draft, waiter: m.Waiter, code: Code, message: str, *, retry_after_ms: int | None = None
) -> None:
    """Answer ``waiter`` with a fault, and record that it happened."""
    message = _with_history(waiter, message)
    if code in _RECORDED:
        record_refusal(draft, waiter.option, waiter.client, code, message)
    # While nothing can be recorded, the disk is at fault, and the message says so.
    hint = None
    if code is Code.WORKER_FAILED and draft.pool.read_only is None:
        hint = f"mlxctl logs worker {waiter.option.model.name}"
    draft.refuse(waiter.ticket, code, message, hint=hint, retry_after_ms=retry_after_ms)


def record_refusal(draft: Draft, option: m.Option, client: str, code: Code, message: str) -> None:
    """The first of a model and code becomes a record at once, others are counted."""
    if draft.pool.read_only is not None:
        return
    model = option.model
    refused = m.RequestRefused(
        key=model.key,
        model=model.name,
        code=code.value,
        client=client,
        message=message,
        needed_bytes=claim_of(draft.pool, option).total_bytes,
        budget_bytes=draft.pool.budget_bytes,
    )
    entry = draft.pool.refusals.get((model.key, code.value))
    if entry is None or (
        not entry.uncounted and entry.recorded_at_ms + REFUSALS_EVERY_MS <= draft.now_ms
    ):
        draft.emit(refused)
    else:
        draft.emit(m.RefusalCounted(refused=refused))


def record_counted(draft: Draft) -> None:
    """Write down the refusals of the last minute that were only counted."""
    if draft.pool.read_only is not None:
        return
    for entry in draft.pool.refusals.values():
        if entry.uncounted and entry.recorded_at_ms + REFUSALS_EVERY_MS <= draft.now_ms:
            draft.emit(replace(entry.last, count=entry.uncounted))


def next_record_ms(pool: Pool) -> list[int]:
    """When counted refusals are due to be recorded."""
    return [e.recorded_at_ms + REFUSALS_EVERY_MS for e in pool.refusals.values() if e.uncounted]


def _with_history(waiter: m.Waiter, message: str) -> str:
    passed = "; ".join(f"{p.model}: {p.why}" for p in waiter.passed_over)
    return f"{message} (passed over before: {passed})" if passed else message
