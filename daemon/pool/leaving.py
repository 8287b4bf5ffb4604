"""Models leave: unloaded when asked or due, evicted when room or memory is short."""

from collections.abc import Sequence

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.eviction import POLICIES, candidates_of, coldest_first
from daemon.pool.state import (
    THRASH_EVICTIONS,
    THRASH_WINDOW_MS,
    TRIM_MS,
    Draining,
    Idle,
    Loading,
    Pool,
    Stopping,
)


def begin_unload(
    draft: Draft, slot: Loading | Idle, reason: m.UnloadReason, *, unpin: bool = False
) -> None:
    """Ask an idle worker to end, or cancel a load; ``unpin`` takes its pin with it."""
    model = slot.tenant.model
    draft.emit(m.UnloadStarted(worker=slot.tenant.worker, model=model.name, reason=reason))
    if unpin and model.key in draft.pool.pins:
        draft.emit(m.ModelUnpinned(key=model.key, model=model.name))


def begin_eviction(
    draft: Draft,
    victim: Idle,
    reason: m.EvictReason,
    *,
    rule: str,
    candidates: tuple[m.Candidate, ...],
    wanted: str = "",
    needed_bytes: int = 0,
    for_clients: tuple[str, ...] = (),
) -> None:
    """Ask an idle worker to make room; say so if it comes and goes too often."""
    model = victim.tenant.model
    draft.emit(
        m.EvictStarted(
            worker=victim.tenant.worker,
            model=model.name,
            reason=reason,
            wanted=wanted,
            needed_bytes=needed_bytes,
            rule=rule,
            candidates=candidates,
            for_clients=for_clients,
        )
    )
    since_ms = draft.now_ms - THRASH_WINDOW_MS
    recent = [e for e in draft.pool.evictions.get(model.key, ()) if e.at_ms > since_ms]
    if len(recent) >= THRASH_EVICTIONS:
        clients = sorted({client for eviction in recent for client in eviction.clients})
        draft.emit(
            m.ThrashNoticed(
                key=model.key,
                model=model.name,
                evictions=len(recent),
                window_ms=THRASH_WINDOW_MS,
                clients=tuple(clients),
            )
        )


def evict_all_idle(
    draft: Draft,
    reason: m.EvictReason,
    rule: str,
    *,
    wanted: str = "",
    needed_bytes: int = 0,
    for_clients: tuple[str, ...] = (),
) -> int:
    """Everything that may go goes, however freshly loaded; how many that were."""
    pool = draft.pool
    victims = coldest_first(pool, draft.now_ms, patient=True)
    candidates = candidates_of(pool, draft.now_ms, patient=True)
    for victim in victims:
        begin_eviction(
            draft,
            victim,
            reason,
            rule=rule,
            candidates=candidates,
            wanted=wanted,
            needed_bytes=needed_bytes,
            for_clients=for_clients,
        )
    return len(victims)


def relieve(draft: Draft) -> None:
    """Evict for hard memory pressure, and where claims have outgrown the budget."""
    pool = draft.pool
    if pool.read_only is not None or pool.stopping is not None:
        return
    relief_ms = relief_at_ms(pool)
    if relief_ms is not None and relief_ms <= draft.now_ms:
        evict_all_idle(draft, "pressure", "memory pressure: all that may go")
        return
    excess_bytes = outgrown_bytes(pool)
    if excess_bytes <= 0:
        return
    eligible = coldest_first(pool, draft.now_ms, patient=False)

    def enough(chosen: Sequence[Idle]) -> bool:
        return sum(s.tenant.claim_bytes for s in chosen) >= excess_bytes

    victims, rule = POLICIES[pool.policy](eligible, enough)
    candidates = candidates_of(pool, draft.now_ms, patient=False)
    for victim in victims or eligible:
        begin_eviction(
            draft,
            victim,
            "memory",
            rule=f"claims outgrew the budget; {rule}",
            candidates=candidates,
            needed_bytes=excess_bytes,
        )


def relief_at_ms(pool: Pool) -> int | None:
    """When idle models go for want of memory; None while nothing asks for that.

    Caches go first: a machine that is no longer said to be so short of memory by then keeps
    its models, though loads wait until that has lasted.
    """
    short = pool.pressure == pool.pressure_reported.level == "hard"
    return None if not short or pool.short_since_ms is None else pool.short_since_ms + TRIM_MS


def outgrown_bytes(pool: Pool) -> int:
    """By how much claims pass the budget once what leaves is gone.

    Loads that were allowed over the budget are left out, by their name in the log.
    """
    claims = 0
    leaves = (Draining, Stopping)
    for slot in pool.slots.values():  # spelled out: every decision comes through here
        tenant = slot.tenant
        if not tenant.over_budget and type(slot) not in leaves:
            reserved, measured = tenant.reserved_bytes, tenant.measured_bytes
            claims += measured if measured > reserved else reserved  # noqa: FURB136 - see above
    return claims - pool.budget_bytes


def unload_for_stop(draft: Draft) -> None:
    """While the daemon stops, whatever is unused goes; a detached worker stays."""
    pool = draft.pool
    if pool.stopping is None or pool.detaching or pool.read_only is not None:
        return
    for slot in pool.slots.values():
        if isinstance(slot, Idle) or (isinstance(slot, Loading) and not slot.inherited):
            begin_unload(draft, slot, "shutdown")
