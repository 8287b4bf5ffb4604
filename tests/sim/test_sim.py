"""The daemon's inside, whole, against machines that fail: nothing that must not happen does."""

from collections.abc import Iterator

import pytest
import structlog

from tests.sim.planted import PLANTED, planted
from tests.sim.simulation import simulate
from tests.sim.worker import Violation

SEEDS = range(1, 13)
STEPS = 250
QUICK = ("never-sync", "stop-without-asking", "sleep-counts")
PLANT_SEEDS = range(1, 61)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of crashes are told by nobody."""
    with structlog.testing.capture_logs():
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_no_failure_of_the_machine_breaks_a_promise(seed: int) -> None:
    outcome = simulate(seed, STEPS)

    assert outcome.steps == STEPS
    assert outcome.granted > 0
    assert outcome.daemons > 2
    assert outcome.restored >= 3


def test_everything_that_can_happen_does() -> None:
    outcomes = [simulate(seed, STEPS) for seed in range(101, 109)]

    for name in outcomes[0].__struct_fields__:
        assert sum(getattr(outcome, name) for outcome in outcomes) > 0, name


def test_a_seed_is_the_whole_story() -> None:
    assert simulate(5, STEPS) == simulate(5, STEPS)
    assert simulate(5, STEPS) != simulate(6, STEPS)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert _is_caught(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANTED.keys() - set(QUICK)))
def test_every_planted_bug_is_caught(name: str) -> None:
    assert _is_caught(name)


def _is_caught(name: str) -> bool:
    with planted(name):
        return any(_violates(seed) for seed in PLANT_SEEDS)


def _violates(seed: int) -> bool:
    try:
        simulate(seed, STEPS)
    except Violation:
        return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_steps() -> None:
    for seed in range(1_000, 3_000):
        simulate(seed, 500)
