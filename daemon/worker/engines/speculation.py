"""Speculative decoding: a draft model guesses some tokens, the model checks them all at once.

For the row that is alone: a batch makes better use of the model than guesses do, and the
library guesses for one row. Rows begin and are decoded in the batch; meanwhile the draft
reads the only one's tokens, a chunk a step, and once it has read them all the row goes on by
mlx_lm's ``speculative_generate_step``, with the cache that it has. When another row comes,
it goes back into the batch, with its cache as far as the guesses were right; and for a while
also where too few guesses are right.
"""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Final

import mlx.core as mx
import structlog
from mlx_lm.generate import speculative_generate_step
from mlx_lm.models.cache import trim_prompt_cache

from daemon.worker.engines.batching import TextDecoder, TextInputs
from daemon.worker.engines.draftmodel import Draft
from daemon.worker.engines.logprobs import read_scores
from daemon.worker.engines.pace import Pace
from daemon.worker.engines.rows import Row, RowFailed, Token
from daemon.worker.engines.weights import weights_bytes
from daemon.worker.engines.worth import Worth

log = structlog.get_logger()

_BESIDE: Final = 1
"""Rows that are decoded while the draft reads."""


class _Run:
    """The row that is decoded with the draft.

    Attributes:
        cache: The model's; holds ``content``, or all of it but the last token.
        content: The row's tokens, prompt and answer.
        left: Tokens that the answer may still get.
        guessed, right: Tokens of the draft, and those of them that the model took.
    """

    def __init__(self, uid: int, row: Row, cache: list[Any], content: list[int]) -> None:
        self.uid = uid
        self.row = row
        self.cache = cache
        self.content = content
        self.left = row.tokens_max - (len(content) - len(row.prompt))
        self.guessed = 0
        self.right = 0
        self.rounds: Any = None


class SpeculativeDecoder:
    """A ``Decoder`` over a :class:`TextDecoder`, for a model that has a draft.

    Args:
        batch: Where rows are unless one of them is alone.
        ends: Tokens that end an answer.
        guesses: Tokens that the draft guesses at a time.
    """

    def __init__(
        self,
        batch: TextDecoder,
        model: Any,
        draft: Draft,
        ends: set[int],
        guesses: int,
        now_s: Callable[[], float] = perf_counter,
    ) -> None:
        self._batch = batch
        self._model = model
        self._draft = draft
        self._ends = ends
        self._guesses = guesses
        self._now_s = now_s
        self._pace = Pace()
        self._worth = Worth(draft.weights_bytes / weights_bytes(model))
        self._reading = False
        self._run: _Run | None = None

    def insert(self, row: Row) -> int:
        return self._batch.insert(row)

    def defers(self, row: Row) -> bool:
        return self._batch.defers(row)

    def remove(self, uid: int) -> None:
        self._reading = False
        if self._run is not None and self._run.uid == uid:
            self._end(self._run)
        else:
            self._batch.remove(uid)

    def next(self) -> list[Token | RowFailed]:
        """As :meth:`Decoder.next`; of a row that is alone, all tokens of one check."""
        if self._run is not None and not self._goes_on(self._run):
            run = self._stop(self._run)
            self._batch.rejoin(run.uid, run.row, run.cache, run.content)
        if self._run is not None:
            return [*self._counted_round(self._run)]
        began_s = self._now_s()
        results = self._batch.next()
        self._reading = self._read(results, began_s)
        return results

    def keep_within(self, bytes_max: int) -> None:
        """As :meth:`Decoder.keep_within`. The cache of the draft belongs to the row that it
        reads, whose place in the allowance has room for both; else it is only kept, too."""
        if self._run is None and not self._reading:
            if self._draft.nbytes > bytes_max:
                self._draft.forget()
            bytes_max -= self._draft.nbytes
        self._batch.keep_within(bytes_max)

    def put_away(self) -> bool:
        return self._batch.put_away()

    def close(self) -> None:
        if self._run is not None:
            self._stop(self._run)
        self._batch.close()

    def _goes_on(self, run: _Run) -> bool:
        wanted = self._batch.empty and self._worth.may_guess
        return wanted and self._reaches(len(run.content))

    def _read(self, results: list[Token | RowFailed], began_s: float) -> bool:
        """Let the draft read on, if a row is alone that it can guess for; once it has read all
        but the last token, it guesses."""
        found = self._guessable(results)
        if found is None:
            return False
        if not self._worth.may_guess:
            self._worth.stepped()
            return False
        uid, row, own = found
        content = [*row.prompt, *row.decoded, own]
        self._pace.took(self._now_s() - began_s, _BESIDE, 0)
        with mx.stream(self._batch.stream):
            done, left = self._draft.follow(content[:-1], self._pace.chunk_tokens(_BESIDE))
        self._pace.took(self._now_s() - began_s, _BESIDE, done)
        if not left:
            self._begin(uid, row, content)
        return True

    def _guessable(self, results: list[Token | RowFailed]) -> tuple[int, Row, int] | None:
        """A row that is alone and can be guessed for, with its uid and the token just decoded."""
        alone, own = self._batch.alone, results[0] if len(results) == 1 else None
        if alone is None or not isinstance(own, Token) or own.uid != alone[0]:
            return None  # also where the one token is another's last, and this row has none yet
        uid, row = alone
        can = row.extra.drawing.can_go_back and self._reaches(row.length + 1)
        return (uid, row, own.token) if can else None

    def _reaches(self, tokens: int) -> bool:
        """Whether the draft can still guess behind so many tokens."""
        return self._draft.reaches(tokens + self._guesses)

    def _begin(self, uid: int, row: Row, content: list[int]) -> None:
        """Take the row out of the batch; its last token is computed again, with the guesses."""
        inputs: TextInputs = row.extra
        cache = self._batch.lend(uid)
        trim_prompt_cache(cache, 1)
        run = self._run = _Run(uid, row, cache, content)
        sampler, processors = inputs.drawing.guessing(content[:-1])
        run.rounds = speculative_generate_step(
            mx.array(content[-1:], mx.uint32),
            self._model,
            self._draft,
            stream=self._batch.stream,
            num_draft_tokens=self._guesses,
            max_tokens=run.left,
            sampler=sampler,
            logits_processors=processors or None,
            prompt_cache=cache + self._draft.cache,
        )

    def _counted_round(self, run: _Run) -> list[Token]:
        tokens = [*self._round(run)]
        if self._run is run:  # else the answer ended, perhaps in the middle of what was guessed
            self._worth.guessed(self._guesses, len(tokens) - 1)
        return tokens

    def _round(self, run: _Run) -> Iterator[Token]:
        """The tokens that one check gives: guesses that were right, and one of the model's."""
        run.guessed += min(run.left, self._guesses)
        for token, logprobs, guessed in run.rounds:
            run.content.append(token)
            run.left -= 1
            run.right += guessed
            finish: Any = "length" if run.left == 0 else None
            finish = "stop" if token in self._ends else finish
            wanted = run.row.extra.logprobs
            scores = None if wanted is None else read_scores(logprobs, token, wanted)
            yield Token(run.uid, token, finish, scores)
            if finish is not None:
                self._end(run)
                return
            if not guessed:
                return

    def _end(self, run: _Run) -> None:
        """The row is over; its cache is kept."""
        self._stop(run)
        held = run.cache[0].offset
        self._batch.keep(run.content[:held], run.cache)

    def _stop(self, run: _Run) -> _Run:
        """Take what was guessed wrong back out of both caches."""
        run.rounds.close()
        self._run, self._reading = None, False
        self._draft.told(run.content)
        request = run.row.request_id
        log.debug("request.drafted", request=request, guessed=run.guessed, right=run.right)
        return run
