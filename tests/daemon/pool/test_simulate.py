"""Demand under other rules, with outcomes reckoned by hand."""

import pytest

from daemon.pool import messages as m
from daemon.pool.demand import Demand, Load, Subject
from daemon.pool.shapes import Waits
from daemon.pool.simulate import Outcome, Rules, Simulation

GB = 10**9
MINUTE_MS = 60_000


def subject(name: str, size_gb: int) -> Subject:
    """Loads in 2.0 s, of which 0.5 s until its worker is up."""
    model = m.Model(
        key=name,
        name=name,
        path=name,
        kind="text",
        capabilities=("text",),
        weights_bytes=size_gb * GB,
        kv_token_bytes=0,
        context_tokens=8192,
    )
    load = Load(
        at_ms=0,
        option=m.Option(model=model),
        spawn_ms=500,
        load_ms=1_500,
        measured_bytes=size_gb * GB,
    )
    return Subject(load)


SUBJECTS = {name: subject(name, size) for name, size in (("a", 6), ("b", 6), ("c", 2), ("d", 4))}


def use(minute: int, key: str, hold_ms: int = 1_000) -> Demand:
    return Demand(at_ms=minute * MINUTE_MS, kind="use", key=key, hold_ms=hold_ms)


def limits(budget_gb: int) -> Demand:
    return Demand(at_ms=0, kind="limits", limits=m.Limits(budget_bytes=budget_gb * GB))


def outcome(*demands: Demand, rules: Rules | None = None, since_ms: int = 0) -> Outcome:
    simulation = Simulation(SUBJECTS, rules or Rules(), since_ms=since_ms, exit_ms=500)
    return simulation.run(demands)


def numbers(found: Outcome) -> tuple[int, int, int, Waits | None]:
    return found.loads, found.evictions, found.expiries, found.waits


def waits(requests: int, total_ms: int, longest_ms: int) -> Waits:
    return Waits(requests=requests, total_ms=total_ms, longest_ms=longest_ms)


IN_TURN = (limits(10), use(1, "a"), use(2, "b"), use(3, "a"))


def test_as_it_was_two_models_take_turns() -> None:
    found = outcome(*IN_TURN)

    assert numbers(found) == (3, 2, 0, waits(3, 7_000, 2_500))
    assert (found.requests, found.refused, found.loading_ms) == (3, 0, 4_500)
    assert 6 * GB < found.peak_bytes < 7 * GB


def test_a_budget_for_both() -> None:
    found = outcome(*IN_TURN, rules=Rules(budget_bytes=20 * GB))

    assert numbers(found) == (2, 0, 0, waits(2, 4_000, 2_000))
    assert 12 * GB < found.peak_bytes < 13 * GB


def test_a_ttl_for_all() -> None:
    found = outcome(*IN_TURN, rules=Rules(budget_bytes=20 * GB, ttl_ms=30_000))

    assert numbers(found) == (3, 0, 2, waits(3, 6_000, 2_000))


def test_a_budget_for_neither_refuses_and_evicts_nothing() -> None:
    found = outcome(*IN_TURN, rules=Rules(budget_bytes=5 * GB))

    assert numbers(found) == (0, 0, 0, waits(0, 0, 0))
    assert (found.requests, found.refused) == (3, 3)


@pytest.mark.parametrize(
    ("rules", "loads", "evictions"),
    [(Rules(), 3, 1), (Rules(policy="largest_first"), 4, 2)],
)
def test_policies_differ(rules: Rules, loads: int, evictions: int) -> None:
    """Room for c: the cold small d goes, or the large warm a, which comes back."""
    found = outcome(limits(12), use(1, "d"), use(2, "a"), use(3, "c"), use(4, "a"), rules=rules)

    assert (found.loads, found.evictions) == (loads, evictions)


def test_what_is_in_use_is_waited_for() -> None:
    found = outcome(limits(10), use(1, "a", hold_ms=90_000), use(2, "b"))

    # a is free 32 s after b came: loaded at 62 s, held until 152 s.
    assert numbers(found) == (2, 1, 0, waits(2, 2_000 + 32_000 + 2_500, 34_500))


def test_what_waits_too_long_is_refused() -> None:
    found = outcome(limits(10), use(1, "a", hold_ms=600_000), use(2, "b"))

    assert (found.loads, found.refused) == (1, 1)


def test_a_stop_of_the_daemon_empties_the_pool() -> None:
    down = Demand(at_ms=2 * MINUTE_MS, kind="down")
    found = outcome(limits(10), use(1, "a"), down, use(3, "a"))

    assert numbers(found) == (2, 0, 0, waits(2, 4_000, 2_000))


def test_what_came_before_only_warms_up() -> None:
    found = outcome(*IN_TURN, use(4, "a"), since_ms=3 * MINUTE_MS)

    assert (found.requests, found.loads, found.evictions) == (2, 1, 1)
    assert found.waits == waits(1, 2_500, 2_500)


def test_people_are_replayed_too() -> None:
    load = Demand(at_ms=MINUTE_MS, kind="load", key="a")
    pin = Demand(at_ms=MINUTE_MS + 5_000, kind="pin", key="a")
    found = outcome(limits(10), load, pin, use(2, "a"), use(3, "b"))
    freed = outcome(
        *(limits(10), load, pin, use(2, "a")),
        Demand(at_ms=150_000, kind="unpin", key="a"),
        Demand(at_ms=151_000, kind="ttl", key="a", ttl_ms=1_000),
        use(3, "b"),
        Demand(at_ms=200_000, kind="unload", key="b"),
        Demand(at_ms=201_000, kind="wish", key="b"),
        use(4, "b"),
    )

    assert (found.loads, found.evictions, found.refused, found.waits) == (1, 0, 1, waits(0, 0, 0))
    assert (freed.loads, freed.evictions, freed.expiries) == (3, 0, 1)
    assert freed.waits == waits(1, 2_000, 2_000)


def test_time_goes_on_to_the_end_of_the_log() -> None:
    simulation = Simulation(SUBJECTS, Rules(ttl_ms=30_000), since_ms=0, exit_ms=500)
    found = simulation.run([limits(10), use(1, "a")], 3 * MINUTE_MS)

    assert (found.loads, found.expiries) == (1, 1)


def test_models_that_the_log_never_loads_are_left_out() -> None:
    assert outcome(limits(10), use(1, "unknown")).requests == 0
