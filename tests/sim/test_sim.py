"""The daemon's inside, whole, against machines that fail: nothing that must not happen does."""

from collections.abc import Iterator

import pytest
import structlog

from tests.sim.host import Violation
from tests.sim.planted import PLANTED, planted
from tests.sim.simulation import simulate

SEEDS = range(1, 13)
STEPS = 200


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


def test_a_seed_is_the_whole_story() -> None:
    assert simulate(5, STEPS) == simulate(5, STEPS)
    assert simulate(5, STEPS) != simulate(6, STEPS)


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_is_caught(name: str) -> None:
    with planted(name):
        assert any(_caught(seed) for seed in range(1, 61))


def _caught(seed: int) -> bool:
    try:
        simulate(seed, STEPS)
    except BaseExceptionGroup as group:
        if group.split(Violation)[0] is None:
            raise  # another failure than was planted
        return True
    except Violation:
        return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_steps() -> None:
    for seed in range(1_000, 3_000):
        simulate(seed, 500)
