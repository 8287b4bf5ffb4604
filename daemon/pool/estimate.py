"""What a load would come to, without it: the shipped decision on a pool that nobody keeps.

Nothing is worked out twice: the verdict is read from the events that :func:`decide` gives
for the very command, so that it cannot say anything else than the load itself would.
"""

from typing import Final, Literal

import msgspec

from daemon.pool import messages as m
from daemon.pool.budget import Claim, claim_of, committed_bytes
from daemon.pool.decide import decide
from daemon.pool.eviction import candidates_of
from daemon.pool.evolve import evolve
from daemon.pool.loading import expected_load_ms
from daemon.pool.schedule import what_holds
from daemon.pool.state import Loading, Pool
from daemon.wire.errors import Fault

TICKET: Final = -1
"""Of nobody: the kernel counts its tickets from 1."""

Verdict = Literal["resident", "loading", "loads", "evicts", "waits", "refused"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen now, and the numbers that it follows from.

    Attributes:
        verdict: It is there; it is being loaded; it is loaded at once; after others have
            gone; after a wait (``reason`` says for what); or not at all (``fault``).
        claim: What is reserved, part by part.
        measured_bytes: What it held when it was last loaded; None if it never was.
        committed_bytes: What all models claim now.
        needed_bytes: What has to be freed before it is loaded.
        rule: What chose the ``victims`` among the ``candidates``.
        load_ms: How long its last load took; a guess if it was never ``learned``.
        over_budget: It would be loaded although it does not fit, as asked.
    """

    model: m.Model
    verdict: Verdict
    claim: Claim
    measured_bytes: int | None
    budget_bytes: int
    residue_bytes: int
    committed_bytes: int
    candidates: tuple[m.Candidate, ...]
    victims: tuple[str, ...] = ()
    needed_bytes: int = 0
    rule: str = ""
    load_ms: int
    learned: bool
    over_budget: bool = False
    passed_over: tuple[m.PassedOver, ...] = ()
    reason: str = ""
    fault: Fault | None = None


def estimate(pool: Pool, load: m.Load, now_ms: int) -> Estimate:
    """What ``load``, whose ticket is :data:`TICKET`, would come to; ``pool`` stays as it is."""
    events = decide(pool, load, now_ms).events
    after = pool
    for event in events:
        after = evolve(after, event, now_ms)
    waiter = _waiter(after, events)
    option = load.options[-1] if waiter is None else waiter.option
    told = _numbers(pool, option, now_ms)
    if waiter is None:
        refused = next((e for e in events if _is_refusal(e)), None)
        assert isinstance(refused, m.TicketRefused), "a request is served, waits, or is refused"
        return msgspec.structs.replace(told, verdict="refused", fault=refused.fault)
    told = msgspec.structs.replace(told, passed_over=waiter.passed_over)
    return _served(told, after, waiter, events, now_ms)


def _is_refusal(event: m.Event) -> bool:
    return isinstance(event, m.TicketRefused) and event.ticket == TICKET


def _waiter(after: Pool, events: tuple[m.Event, ...]) -> m.Waiter | None:
    """The request as it last stood in the queue; None if it was refused."""
    if any(_is_refusal(event) for event in events):
        return None
    moved = [
        event.waiter
        for event in events
        if isinstance(event, m.WaiterQueued | m.WaiterMoved) and event.waiter.ticket == TICKET
    ]
    waiting = [waiter for waiter in after.waiters if waiter.ticket == TICKET]
    return (waiting or moved)[-1]


def _numbers(pool: Pool, option: m.Option, now_ms: int) -> Estimate:
    learned = pool.learned.get(option.model.key)
    return Estimate(
        model=option.model,
        verdict="resident",
        claim=claim_of(pool, option),
        measured_bytes=None if learned is None else learned.measured_bytes,
        budget_bytes=pool.budget_bytes,
        residue_bytes=pool.limits.budget_bytes - pool.budget_bytes,
        committed_bytes=committed_bytes(pool),
        candidates=candidates_of(pool, now_ms, patient=False),
        load_ms=expected_load_ms(pool, option.model.key),
        learned=learned is not None,
    )


def _served(
    told: Estimate, after: Pool, waiter: m.Waiter, events: tuple[m.Event, ...], now_ms: int
) -> Estimate:
    """The verdict on a request that was not refused."""
    replace = msgspec.structs.replace
    model = waiter.option.model
    if all(waiting.ticket != TICKET for waiting in after.waiters):
        return told
    started = [e for e in events if isinstance(e, m.LoadStarted) and e.model.key == model.key]
    if started:
        return replace(told, verdict="loads", over_budget=started[0].over_budget)
    if isinstance(after.slots.get(model.key), Loading):
        return replace(told, verdict="loading")
    evicted = [e for e in events if isinstance(e, m.EvictStarted) and e.wanted == model.name]
    if evicted:
        return replace(
            told,
            verdict="evicts",
            victims=tuple(e.model for e in evicted),
            needed_bytes=evicted[0].needed_bytes,
            rule=evicted[0].rule,
            candidates=evicted[0].candidates,
        )
    return replace(told, verdict="waits", reason=what_holds(after, waiter, now_ms))
