"""Whether a draft's guesses pay, in time, and how long to do without them where they do not.

Nothing else tells: a draft costs what this machine takes for it, and what is guessed right
depends on what is written.
"""

from collections import deque
from statistics import mean, median
from typing import Final

import structlog

log = structlog.get_logger()

STEPS_MIN: Final = 4
"""Plain steps to measure before anything is guessed."""

ROUNDS: Final = 12
"""Rounds of guesses that are judged together: two or three dozen tokens."""

REST_TOKENS: Final = 64
"""Tokens without guesses after the first verdict against them; at least twice as many after
each further one."""

TRIAL_SHARE: Final = 0.1
"""A trial may cost so much of the time of the tokens before the next one."""

REST_TOKENS_MAX: Final = 4096
"""A draft that would have to rest for longer is given up."""


class Worth:
    """The times of one decoder's steps and rounds; seconds of any one clock."""

    def __init__(self) -> None:
        self._steps_s: deque[float] = deque(maxlen=2 * STEPS_MIN)
        self._rounds: list[tuple[float, int]] = []
        self._before_s: float | None = None
        self._read_s = 0.0
        self._rest = 0
        self._rest_next = REST_TOKENS
        self._given_up = False

    @property
    def may_guess(self) -> bool:
        """Whether it pays, for all that is known, and a plain step can be compared with."""
        rested = self._rest == 0 and not self._given_up
        return rested and len(self._steps_s) >= STEPS_MIN

    def stepped(self, now_s: float) -> None:
        """A plain step of a row that is alone has ended."""
        if self._before_s is not None:
            self._steps_s.append(now_s - self._before_s)
        self._before_s = now_s
        self._rest = max(self._rest - 1, 0)

    def read(self, seconds: float) -> None:
        """The draft has read some of what is there, before it can guess."""
        self._read_s += seconds

    def guessed(self, now_s: float, tokens: int) -> None:
        """A round of guesses has ended, and gave so many tokens."""
        if self._before_s is not None:
            self._rounds.append((now_s - self._before_s, tokens))
        self._before_s = now_s
        if len(self._rounds) == ROUNDS:
            self._judge()
            self._rounds.clear()

    def interrupted(self) -> None:
        """What comes next cannot be timed from what was last."""
        self._before_s = None

    def _judge(self) -> None:
        round_s = median(seconds for seconds, _ in self._rounds)
        tokens = mean(tokens for _, tokens in self._rounds)
        step_s = median(self._steps_s)
        cost_s = self._read_s + ROUNDS * (round_s - step_s * tokens)
        self._read_s = 0.0
        if round_s <= step_s * tokens:
            self._rest_next = REST_TOKENS
            return
        self._rest = max(self._rest_next, int(cost_s / (TRIAL_SHARE * step_s)))
        self._rest_next = 2 * self._rest
        self._given_up = self._rest > REST_TOKENS_MAX
        log.info(
            "draft.given_up" if self._given_up else "draft.rests",
            token_ms=round(1000 * round_s / tokens, 2),
            without_ms=round(1000 * step_s, 2),
            tokens=None if self._given_up else self._rest,
        )
