"""Whether a draft's guesses pay, and how long to do without them where they do not.

A step takes the time that the weights take to be read, so a guess costs what the draft's
weights are of the model's, and one that is right saves a step. The clock would say the same
with more noise, and could not compare: a step takes longer the longer its context is.
"""

from typing import Final

import structlog

log = structlog.get_logger()

ROUNDS: Final = 12
"""Rounds of guesses that are judged together."""

REST_TOKENS: Final = 64
"""Tokens without guesses after the first verdict against them; twice as many after the next."""

REST_TOKENS_MAX: Final = 4096


class Worth:
    """What one model's draft was right about of late.

    Args:
        cost: Of a guess, in steps of the model. What counts is the least that it can be: a
            model of experts reads a part of its weights only.
    """

    def __init__(self, cost: float) -> None:
        self._cost = cost
        self._rounds = 0
        self._guessed = 0
        self._right = 0
        self._rest = 0
        self._rest_next = REST_TOKENS

    @property
    def may_guess(self) -> bool:
        """Whether guesses pay, for all that is known."""
        return self._rest == 0

    def stepped(self) -> None:
        """A token was decoded that might have been guessed."""
        self._rest = max(self._rest - 1, 0)

    def guessed(self, guessed: int, right: int) -> None:
        """A round has ended: so many guesses, and so many of them right."""
        self._rounds += 1
        self._guessed += guessed
        self._right += right
        if self._rounds == ROUNDS:
            self._judge()
            self._rounds = self._guessed = self._right = 0

    def _judge(self) -> None:
        if self._right >= self._cost * self._guessed:
            self._rest_next = REST_TOKENS
            return
        self._rest = self._rest_next
        self._rest_next = min(2 * self._rest_next, REST_TOKENS_MAX)
        log.info("draft.rests", tokens=self._rest, guessed=self._guessed, right=self._right)
