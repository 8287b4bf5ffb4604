"""Whether a model would find room in the pool now, in words. Pure."""

import msgspec

from daemon.pool.budget import claim_of, committed_bytes, never_fits
from daemon.pool.eviction import Evict, Fits, Wait, make_room
from daemon.pool.messages import Option
from daemon.pool.state import MIN_RESIDENCY_MS, Pool
from daemon.wire.control import Fit
from daemon.wire.units import format_bytes


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one model that is not in memory.

    Attributes:
        claim_bytes: What it would take of the budget.
        note: Why, where it is not simply "now".
    """

    claim_bytes: int
    fits: Fit
    note: str | None = None


def room_for(pool: Pool, option: Option) -> Room:
    """What would happen if ``option`` were asked for now.

    Models that were loaded a moment ago count as evictable: a request that has waited ten
    seconds may take their place.
    """
    claim = claim_of(pool, option).total_bytes
    failures = pool.failures.get(option.model.key)
    if failures is not None and failures.quarantined:
        return Room(claim_bytes=claim, fits="never", note=f"quarantined: {failures.message}")
    if (reason := never_fits(pool, option)) is not None:
        return Room(claim_bytes=claim, fits="never", note=reason)
    # After so long a wait nothing is protected for its youth: the moment does not matter.
    match make_room(pool, option, MIN_RESIDENCY_MS, 0):
        case Fits():
            return Room(claim_bytes=claim, fits="now")
        case Evict(victims=victims):
            names = ", ".join(slot.tenant.model.name for slot in victims)
            return Room(claim_bytes=claim, fits="after_evicting", note=f"would evict {names}")
        case Wait(leaving=True):
            return Room(claim_bytes=claim, fits="after_waiting", note="room is being made")
        case Wait():
            free = format_bytes(max(0, pool.budget_bytes - committed_bytes(pool)))
            note = f"needs {format_bytes(claim)}, {free} is free, and the rest is in use or pinned"
            return Room(claim_bytes=claim, fits="after_waiting", note=note)
