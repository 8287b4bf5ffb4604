"""Who must go when room is needed: a pure choice that never logs and never acts."""

from collections.abc import Callable, Sequence
from typing import Final, assert_never

import msgspec

from daemon.pool.budget import claim_of, committed_bytes
from daemon.pool.messages import Candidate, Option
from daemon.pool.state import (
    MIN_RESIDENCY_MS,
    Busy,
    Draining,
    Idle,
    Loading,
    PolicyName,
    Pool,
    Slot,
    Stopping,
)
from daemon.wire.units import counted


class Fits(msgspec.Struct, frozen=True):
    """There is room now."""


class Evict(msgspec.Struct, frozen=True, kw_only=True):
    """These may go, and together they make room."""

    victims: tuple[Idle, ...]
    needed_bytes: int
    rule: str
    candidates: tuple[Candidate, ...]
    for_count: bool
    """Room is short in number of workers only."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Room comes later.

    Attributes:
        leaving: What is leaving already makes enough room; else what is in use or protected
            holds it.
    """

    leaving: bool


Room = Fits | Evict | Wait
Enough = Callable[[Sequence[Idle]], bool]
Policy = Callable[[Sequence[Idle], Enough], tuple[tuple[Idle, ...], str]]
"""Of what may go, coldest first, those that shall; and the rule in words. Pure."""


def make_room(
    pool: Pool, wanted: Option, waited_ms: int, now_ms: int, *, claim_bytes: int | None = None
) -> Room:
    """How ``wanted`` could get its claim.

    Args:
        waited_ms: How long the queue's head has waited: after ``MIN_RESIDENCY_MS`` even
            freshly loaded models may go.
        claim_bytes: Instead of what ``wanted`` claims; 0 looks at the number of workers
            alone.
    """
    limits = pool.limits
    if claim_bytes is None:
        claim_bytes = claim_of(pool, wanted).total_bytes
    short_bytes = committed_bytes(pool) + claim_bytes - pool.budget_bytes if claim_bytes else 0
    short_workers = len(pool.slots) + 1 - (limits.workers_max or len(pool.slots) + 1)
    if short_bytes <= 0 and short_workers <= 0:
        return Fits()
    leaving = [s for s in pool.slots.values() if isinstance(s, Draining | Stopping)]
    needed_bytes = short_bytes - sum(s.tenant.claim_bytes for s in leaving)
    needed_workers = short_workers - len(leaving)
    if needed_bytes <= 0 and needed_workers <= 0:
        return Wait(leaving=True)

    def enough(chosen: Sequence[Idle]) -> bool:
        freed = sum(s.tenant.claim_bytes for s in chosen)
        return freed >= needed_bytes and len(chosen) >= needed_workers

    patient = waited_ms >= MIN_RESIDENCY_MS
    choose = POLICIES[pool.policy]
    victims, rule = choose(coldest_first(pool, now_ms, patient=patient), enough)
    if not victims:
        return Wait(leaving=False)
    return Evict(
        victims=victims,
        needed_bytes=max(needed_bytes, 0),
        rule=rule,
        candidates=candidates_of(pool, now_ms, patient=patient),
        for_count=needed_bytes <= 0,
    )


def coldest_first(pool: Pool, now_ms: int, *, patient: bool) -> list[Idle]:
    """What may be evicted; ``patient`` takes freshly loaded models too."""
    eligible = [
        slot
        for slot in pool.slots.values()
        if isinstance(slot, Idle) and _protection(pool, slot, now_ms, patient) is None
    ]
    eligible.sort(key=lambda slot: (slot.service.last_used_at_ms, slot.tenant.worker))
    return eligible


def candidates_of(pool: Pool, now_ms: int, *, patient: bool) -> tuple[Candidate, ...]:
    """Every model in memory, and what protects it."""
    return tuple(_candidate(pool, slot, now_ms, patient) for slot in pool.slots.values())


def least_recently_used(
    coldest_first: Sequence[Idle], enough: Enough
) -> tuple[tuple[Idle, ...], str]:
    """The coldest single model that frees enough; else the coldest together, the unneeded
    left out. Nothing if all of them are not enough.
    """
    for slot in coldest_first:
        if enough((slot,)):
            return (slot,), "lru: coldest single model that frees enough"
    chosen = _until_enough(coldest_first, enough)
    return chosen, "lru: coldest first until enough" if chosen else "lru: nothing may go"


def largest_first(coldest_first: Sequence[Idle], enough: Enough) -> tuple[tuple[Idle, ...], str]:
    """The largest that suffice, so that as few as possible go; of equals the colder first."""
    ranked = sorted(coldest_first, key=lambda slot: -slot.tenant.claim_bytes)
    chosen = _until_enough(ranked, enough)
    return chosen, "largest first until enough" if chosen else "largest first: nothing may go"


def _until_enough(ranked: Sequence[Idle], enough: Enough) -> tuple[Idle, ...]:
    """As many from the front as it takes, the unneeded left out; none if all are too few."""
    chosen: list[Idle] = []
    for slot in ranked:
        chosen.append(slot)
        if enough(chosen):
            break
    else:
        return ()
    for slot in reversed(chosen[:-1]):
        without = [s for s in chosen if s is not slot]
        if enough(without):
            chosen = without
    return tuple(chosen)


POLICIES: Final[dict[PolicyName, Policy]] = {
    "lru": least_recently_used,
    "largest_first": largest_first,
}
"""Who may be asked to go, and for what rule; a simulation can choose another."""


def _protection(pool: Pool, slot: Slot, now_ms: int, patient: bool) -> str | None:
    """What protects ``slot`` from eviction; None if nothing does."""
    if slot.tenant.model.key in pool.pins:
        return "pinned"
    match slot:
        case Loading():
            return "loading"
        case Busy():
            return (
                f"in use: {counted(len(slot.leases), 'lease')}, {counted(slot.running, 'request')}"
            )
        case Draining() | Stopping():
            return "already leaving"
        case Idle():
            age_ms = now_ms - slot.service.loaded_at_ms
            return "just loaded" if age_ms < MIN_RESIDENCY_MS and not patient else None
        case _:
            assert_never(slot)


def _candidate(pool: Pool, slot: Slot, now_ms: int, patient: bool) -> Candidate:
    used_at_ms = slot.since_ms if isinstance(slot, Loading | Stopping) else _last_used(slot)
    return Candidate(
        model=slot.tenant.model.name,
        claim_bytes=slot.tenant.claim_bytes,
        last_used_at_ms=used_at_ms,
        why_not=_protection(pool, slot, now_ms, patient),
    )


def _last_used(slot: Idle | Busy | Draining) -> int:
    return slot.service.last_used_at_ms
