"""What an estimate promised, compared with the events that the load itself gave."""

from daemon.pool import messages as m
from daemon.pool.estimate import Estimate


def check_estimate(
    told: Estimate, load: m.Load, held: set[str], events: tuple[m.Event, ...]
) -> None:
    """Args: ``held`` are the keys of the slots before the load was asked for."""
    name = told.model.name
    refusals = [
        e.fault for e in events if isinstance(e, m.TicketRefused) and e.ticket == load.ticket
    ]
    answered = [e for e in events if isinstance(e, m.LoadAnswered) and e.ticket == load.ticket]
    started = [e for e in events if isinstance(e, m.LoadStarted) and e.model.name == name]
    evicted = [e for e in events if isinstance(e, m.EvictStarted) and e.wanted == name]
    match told.verdict:
        case "refused":
            assert refusals == [told.fault]
        case "resident":
            assert answered
        case "loads":
            assert [e.claim_bytes for e in started] == [told.claim.total_bytes]
            assert started[0].over_budget == told.over_budget
        case "evicts":
            assert tuple(e.model for e in evicted) == told.victims
            assert {(e.needed_bytes, e.rule) for e in evicted} == {(told.needed_bytes, told.rule)}
        case "loading":
            assert told.model.key in held
        case "waits":
            assert told.reason
    assert bool(refusals) == (told.verdict == "refused")
    assert bool(answered) == (told.verdict == "resident")
    assert bool(started) == (told.verdict == "loads")
    assert bool(evicted) == (told.verdict == "evicts")
