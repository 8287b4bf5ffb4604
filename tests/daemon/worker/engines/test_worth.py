"""Guesses are made while enough of them are right, and tried again after a rest."""

import pytest

from daemon.worker.engines.worth import REST_TOKENS, REST_TOKENS_MAX, ROUNDS, Worth


def rounds(worth: Worth, right: int, *, guessed: int = 3, times: int = ROUNDS) -> None:
    for _ in range(times):
        worth.guessed(guessed, right)


def rest(worth: Worth) -> int:
    """Tokens until it guesses again."""
    for taken in range(2 * REST_TOKENS_MAX):
        if worth.may_guess:
            return taken
        worth.stepped()
    raise AssertionError("it never guesses again")


@pytest.mark.parametrize(
    ("cost", "right", "pays"),
    [(0.3, 1, True), (0.34, 1, False), (0.6, 2, True), (0.7, 2, False), (1.0, 3, True)],
)
def test_what_is_right_has_to_make_up_for_what_is_guessed(
    cost: float, right: int, pays: bool
) -> None:
    worth = Worth(cost)
    for _ in range(9):
        rounds(worth, right)
    assert worth.may_guess == pays


def test_a_verdict_takes_some_rounds(worth: Worth) -> None:
    rounds(worth, 0, times=ROUNDS - 1)
    assert worth.may_guess
    rounds(worth, 0, times=1)
    assert not worth.may_guess


def test_rests_grow_and_end(worth: Worth) -> None:
    rests = []
    for _ in range(9):
        rounds(worth, 0)
        rests.append(rest(worth))
    assert rests == [min(REST_TOKENS * 2**n, REST_TOKENS_MAX) for n in range(9)]


def test_a_good_time_makes_the_next_rest_short_again(worth: Worth) -> None:
    for _ in range(4):
        rounds(worth, 0)
        rest(worth)
    rounds(worth, 3)
    assert worth.may_guess
    rounds(worth, 0)
    assert rest(worth) == REST_TOKENS


def test_each_verdict_is_about_its_own_rounds(worth: Worth) -> None:
    for _ in range(50):
        rounds(worth, 3)
    rounds(worth, 0)
    assert not worth.may_guess


@pytest.fixture
def worth() -> Worth:
    return Worth(0.2)
