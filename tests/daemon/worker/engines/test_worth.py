"""Guesses are made while they are faster than plain steps, and tried again after a rest."""

import pytest

from daemon.worker.engines.worth import REST_TOKENS, REST_TOKENS_MAX, ROUNDS, STEPS_MIN, Worth


class Timed:
    """A decoder's steps of 10 ms and rounds of another length, as the clock has them."""

    def __init__(self) -> None:
        self.worth = Worth()
        self.now_s = 5.0

    def step(self, times: int = 1, ms: float = 10) -> None:
        for _ in range(times):
            self.now_s += ms / 1000
            self.worth.stepped(self.now_s)

    def begin(self) -> None:
        """Until something can be guessed; returns with a round about to be timed."""
        while not self.worth.may_guess:
            self.step()
        self.worth.interrupted()
        self.rounds(1, ms=999, tokens=1)

    def rounds(self, times: int = ROUNDS, *, ms: float, tokens: int) -> None:
        for _ in range(times):
            self.now_s += ms / 1000
            self.worth.guessed(self.now_s, tokens)

    def rest(self) -> int:
        """Plain steps until it guesses again."""
        self.worth.interrupted()
        for taken in range(10 * REST_TOKENS_MAX):
            if self.worth.may_guess:
                return taken
            self.step()
        raise AssertionError("it never guesses again")


@pytest.fixture
def timed() -> Timed:
    return Timed()


def test_plain_steps_are_measured_before_anything_is_guessed(timed: Timed) -> None:
    timed.step(STEPS_MIN)
    assert not timed.worth.may_guess, "the first step has nothing before it"
    timed.step()
    assert timed.worth.may_guess


def test_guesses_that_save_time_go_on(timed: Timed) -> None:
    timed.begin()
    for _ in range(20):
        timed.rounds(ms=25, tokens=3)
        assert timed.worth.may_guess


def test_guesses_that_cost_time_rest_for_longer_each_time(timed: Timed) -> None:
    rests: list[int] = []
    for _ in range(7):
        timed.begin()
        timed.rounds(ROUNDS - 1, ms=25, tokens=2)
        assert timed.worth.may_guess
        timed.rounds(1, ms=25, tokens=2)
        assert not timed.worth.may_guess
        rests.append(timed.rest())
    assert rests == [REST_TOKENS * 2**n for n in range(7)]
    assert rests[-1] == REST_TOKENS_MAX
    timed.begin()
    timed.rounds(ms=25, tokens=2)
    timed.step(10 * REST_TOKENS_MAX)
    assert not timed.worth.may_guess, "given up"


def test_a_costly_trial_is_followed_by_a_rest_that_outweighs_it(timed: Timed) -> None:
    timed.begin()
    timed.worth.read(1.0)
    timed.rounds(ms=25, tokens=2)
    lost_s = 1.0 + ROUNDS * 0.005
    assert timed.rest() == pytest.approx(10 * lost_s / 0.010, abs=1)


def test_reading_counts_against_the_guesses_after_it_only(timed: Timed) -> None:
    timed.begin()
    timed.worth.read(1.0)
    timed.rounds(ms=25, tokens=3)
    timed.rounds(ms=25, tokens=2)
    assert timed.rest() == REST_TOKENS


def test_a_good_time_makes_the_next_rest_short_again(timed: Timed) -> None:
    for _ in range(4):
        timed.begin()
        timed.rounds(ms=25, tokens=2)
        timed.rest()
    timed.begin()
    timed.rounds(ms=25, tokens=4)
    timed.rounds(ms=25, tokens=2)
    assert timed.rest() == REST_TOKENS


def test_one_slow_round_is_no_verdict(timed: Timed) -> None:
    timed.begin()
    timed.rounds(ROUNDS - 1, ms=25, tokens=3)
    timed.rounds(1, ms=9_000, tokens=3)
    assert timed.worth.may_guess


def test_a_pause_is_no_step(timed: Timed) -> None:
    timed.begin()
    for _ in range(3 * STEPS_MIN):
        timed.worth.interrupted()
        timed.step(1, ms=60_000)
    timed.worth.interrupted()
    timed.rounds(1, ms=60_000, tokens=1)
    timed.rounds(ms=25, tokens=2)
    assert not timed.worth.may_guess, "against steps of 10 ms"


def test_steps_are_those_of_late(timed: Timed) -> None:
    """A step grows with its context."""
    timed.begin()
    timed.rounds(ms=25, tokens=2)
    timed.worth.interrupted()
    while not timed.worth.may_guess:
        timed.step(ms=15)
    timed.worth.interrupted()
    timed.rounds(1 + ROUNDS, ms=25, tokens=2)
    assert timed.worth.may_guess
