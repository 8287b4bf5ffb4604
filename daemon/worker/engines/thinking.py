"""A bound on how long a model thinks: then its closing marker is all that may come next."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np


class ThinkingBudget:
    """The logits processor of one row.

    Args:
        start, end: The model's markers of thinking, as tokens.
        thinking: Whether the prompt has opened the thinking already.
        tokens_max: Tokens of thinking, the markers not counted.
        call: The opening marker of a call, which ends the thinking as well; empty if there
            are no tools.
        answering: Whether a form is being written, whatever the markers in it.
    """

    def __init__(
        self,
        start: tuple[int, ...],
        end: tuple[int, ...],
        tokens_max: int,
        prompt_tokens: int,
        *,
        thinking: bool,
        call: tuple[int, ...] = (),
        answering: Callable[[], bool] = lambda: False,
    ) -> None:
        self._call = call
        self._answering = answering
        self._start = start
        self._end = end
        self._tokens_max = tokens_max
        self._done = prompt_tokens
        self._left: int | None = tokens_max if thinking else None
        self._tail: tuple[int, ...] = ()
        self._closing: int | None = None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits as they are, or with the closing marker's next token alone."""
        new: list[int] = np.array(tokens[self._done :]).tolist()
        self._done += len(new)
        for token in new:
            self._take(token)
        if self._answering():
            self._left = self._closing = None
        if self._left == 0 and self._closing is None:
            self._closing = 0
        if self._closing is None:
            return logits
        forced = mx.arange(logits.shape[-1]) == self._end[self._closing]
        return mx.where(forced, logits, -mx.inf)

    def _take(self, token: int) -> None:
        """Follow the row by one token."""
        if self._closing is not None:
            self._closing += 1
            if self._closing == len(self._end):
                self._closing = self._left = None
            return
        markers = (self._start,) if self._left is None else (self._end, self._call)
        self._tail = (*self._tail, token)[-max(map(len, markers)) :]
        if any(marker and self._tail[-len(marker) :] == marker for marker in markers):
            self._left = self._tokens_max if self._left is None else None
            self._tail = ()
        elif self._left is not None:
            self._left -= 1
