"""Log probabilities of decoded tokens, as the engine computed them.

They are those from which the token was drawn: after logit bias, penalties and constraints,
before temperature and the filters. Each is reported with the visible text it belongs to:
of a token whose text is held back the report is held back too, and of one that turned out
to be reasoning, markup or a stop text there is none.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import mlx.core as mx
import msgspec
import numpy as np

from daemon.wire.data import Candidate, TokenLogprob
from daemon.worker.engines.splitting import Segment

TokenBytes = Callable[[int], bytes]
"""A token's text as UTF-8, maybe a part of a character."""


class Scores(msgspec.Struct, frozen=True):
    """Log probability of the token that came, and of the likeliest, best first, by id."""

    token: float
    top: tuple[tuple[int, float], ...] = ()


def read_scores(logprobs: mx.array, token: int, count: int) -> Scores:
    """The scores of one token out of the log probabilities ``[vocabulary]`` of its step."""
    # On the CPU's own stream: on the model's this would wait for the step that is under way.
    with mx.stream(mx.cpu):
        values = np.array(logprobs.astype(mx.float32))
    count = min(count, len(values))
    best = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, np.int64)
    ranked = sorted(((int(i), float(values[i])) for i in best), key=lambda entry: -entry[1])
    return Scores(float(values[token]), tuple(entry for entry in ranked if math.isfinite(entry[1])))


class Recorder:
    """A logits processor that changes nothing, and keeps each step's log probabilities.

    For a batch that gives out none, or only those after a row's token was forced.
    """

    def __init__(self) -> None:
        self._steps: deque[mx.array] = deque()

    def __call__(self, _tokens: mx.array, logits: mx.array) -> mx.array:
        logprobs = (logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0]
        mx.async_eval(logprobs)  # type: ignore[no-untyped-call]
        self._steps.append(logprobs)
        return logits

    def next(self) -> mx.array:
        """``[vocabulary]`` of the oldest step that was not taken yet."""
        return self._steps.popleft()


class _Entry(msgspec.Struct, frozen=True):
    """A stretch of text and the scores of the tokens that it came from."""

    start: int
    end: int
    scores: tuple[TokenLogprob, ...]


class LogprobTrail:
    """Which tokens' scores go out with which text.

    Text is counted in characters from the beginning of the answer, markup included, as
    :class:`~daemon.worker.engines.splitting.Splitter` counts it.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._bytes = token_bytes
        self._open: list[TokenLogprob] = []
        self._waiting: list[_Entry] = []
        self._end = 0

    def add(self, token: int, scores: Scores, text: str) -> None:
        """Take a token in, with the text that came out of the detokeniser for it."""
        self._open.append(
            TokenLogprob(
                token=self._bytes(token),
                logprob=scores.token,
                top=tuple(
                    Candidate(token=self._bytes(other), logprob=value)
                    for other, value in scores.top
                ),
            )
        )
        self.close(text)

    def close(self, text: str) -> None:
        """Text came out: it belongs to the tokens since text came out last."""
        if text:
            start, self._end = self._end, self._end + len(text)
            self._waiting.append(_Entry(start, self._end, tuple(self._open)))
            self._open = []

    def take(self, segments: Sequence[Segment], decided: int) -> tuple[TokenLogprob, ...]:
        """The scores that go out with ``segments``; text up to ``decided`` is settled."""
        visible = [
            (segment.start, segment.start + len(segment.text))
            for segment in segments
            if segment.state == "answer" and segment.text
        ]
        taken: list[TokenLogprob] = []
        kept: list[_Entry] = []
        for entry in self._waiting:
            if any(entry.start < end and start < entry.end for start, end in visible):
                taken += entry.scores
            elif entry.end > decided:
                kept.append(entry)
        self._waiting = kept
        return tuple(taken)
