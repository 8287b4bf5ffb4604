"""Loads that nobody waits for: preload at start, and what belongs to the pool comes back."""

from daemon.pool import messages as m
from daemon.pool.budget import never_fits
from daemon.pool.draft import Draft
from daemon.pool.eviction import Fits, Wait, make_room
from daemon.pool.failure import failed_before, retry_at_ms
from daemon.pool.loading import emit_load
from daemon.pool.refusing import record_refusal
from daemon.pool.state import Kept, Loading, Pool
from daemon.wire.errors import Code

ASKER = "mlxd"


def add_wishes(draft: Draft, wishes: tuple[m.Wish, ...]) -> None:
    """Queue what is neither in memory nor queued; nothing in safe mode or while stopping."""
    pool = draft.pool
    if pool.stopping is not None or pool.safe_mode_since_ms is not None:
        return
    there = pool.slots.keys() | {wish.option.model.key for wish in pool.wishes}
    new = {w.option.model.key: w for w in wishes if w.option.model.key not in there}
    if new:
        draft.emit(m.WishesAdded(wishes=tuple(new.values())))


def restored(pool: Pool) -> tuple[m.Wish, ...]:
    """What belongs to the pool and is not in memory: to be wished for after a restart."""
    return tuple(
        m.Wish(
            option=_option_of(kept),
            reason="restore",
            ttl_ms=_asked_ttl_ms(kept),
            used_at_ms=kept.used_at_ms,
        )
        for key, kept in pool.kept.items()
        if key not in pool.slots
    )


def _option_of(kept: Kept) -> m.Option:
    return m.Option(model=kept.model, terms=m.Terms(ttl_ms=kept.ttl_ms, rows_max=kept.rows_max))


def _asked_ttl_ms(kept: Kept) -> m.AskedIdle:
    """The time that a person set is theirs; any other follows the configuration."""
    if not kept.ttl_asked:
        return None
    return "never" if kept.ttl_ms is None else kept.ttl_ms


def wish_back(draft: Draft, key: str, *, was_used: bool) -> None:
    """A model that people had loaded comes back after its worker ended.

    Args:
        was_used: It served somebody at its end: its idle time begins anew.
    """
    kept = draft.pool.kept.get(key)
    if kept is None:
        return
    wish = m.Wish(
        option=_option_of(kept),
        reason="restore",
        ttl_ms=_asked_ttl_ms(kept),
        used_at_ms=None if was_used else kept.used_at_ms,
    )
    if was_used or not _has_expired(draft.pool, kept, draft.now_ms):
        add_wishes(draft, (wish,))


def start_wish(draft: Draft) -> None:
    """Load the next of them: one at a time, behind every request, in room that is free."""
    pool = draft.pool
    if pool.read_only is not None or pool.pressure != "normal" or not pool.wishes or pool.waiters:
        return
    if any(isinstance(slot, Loading) for slot in pool.slots.values()):
        return
    for wish in pool.wishes:
        if retry_at_ms(pool, wish.option.model.key) <= draft.now_ms:
            _start_or_drop(draft, wish)
            return


def _start_or_drop(draft: Draft, wish: m.Wish) -> None:
    model = wish.option.model
    if model.key in draft.pool.slots:
        _drop(draft, wish, "it is in memory already")
        return
    refusal = failed_before(draft.pool, model)
    impossible = never_fits(draft.pool, wish.option)
    if refusal is None and impossible is not None:
        refusal = Code.OVER_BUDGET, impossible
    room = make_room(draft.pool, wish.option, 0, draft.now_ms)
    if refusal is None and isinstance(room, Wait) and room.leaving:
        return
    if refusal is None and not isinstance(room, Fits):
        message = f"no room for {model.name} beside the models in memory; load it by name"
        refusal = Code.BUSY, message
    if refusal is not None:
        code, message = refusal
        record_refusal(draft, wish.option, ASKER, code, message)
        _drop(draft, wish, message)
        return
    emit_load(
        draft,
        wish.option,
        wish.reason,
        asked_by=(ASKER,),
        asked_ttl_ms=wish.ttl_ms,
        used_at_ms=wish.used_at_ms,
    )


def _drop(draft: Draft, wish: m.Wish, why: str) -> None:
    model = wish.option.model
    draft.emit(m.WishDropped(key=model.key, model=model.name, why=why))


def _has_expired(pool: Pool, kept: Kept, now_ms: int) -> bool:
    if kept.ttl_ms is None or kept.model.key in pool.pins:
        return False
    return kept.used_at_ms + kept.ttl_ms <= now_ms
