"""mlx_lm's continuous batching as a ``Decoder``, with a prefix cache in front of it."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final

import msgspec
from mlx_lm.generate import BatchGenerator, StopSequences
from mlx_lm.models.cache import make_prompt_cache

from daemon.worker.engines.drawing import Drawing
from daemon.worker.engines.logprobs import read_scores
from daemon.worker.engines.pace import Pace
from daemon.worker.engines.prefix import Found, PrefixTree, common_tokens, make_store
from daemon.worker.engines.prefixdisk import KeptOnDisk, Shelf
from daemon.worker.engines.rows import Row, RowFailed, Token
from daemon.worker.engines.sampling import GREEDY

PREFILL_ROWS: Final = 8
"""Prompts that are prefilled together; a chunk is shared out among them."""

KEPT_EARLY_TOKENS: Final = 256
"""From so many new prompt tokens on, a row's cache is kept as soon as its prompt is
computed, so that a second request with that prompt need not wait for the answer's end."""


class TextInputs(msgspec.Struct, frozen=True):
    """What a row needs besides its tokens.

    Attributes:
        drawing: Decides the next token.
        logprobs: How many alternatives a token; None for no log probabilities.
        cut: A position in the prompt behind which later turns may differ, such as where the
            template opens the answer; for caches that cannot be cut anywhere.
    """

    drawing: Drawing
    logprobs: int | None = None
    cut: int | None = None


class _Batch(BatchGenerator):  # type: ignore[misc]
    """The library's batch; what is needed of its inside is here and nowhere else."""

    def bound_prefill(self, row_tokens: int) -> None:
        """At most so many prompt tokens a row in the next step."""
        self.prefill_step_size = row_tokens
        self._prompt_batch.prefill_step_size = row_tokens

    @property
    def decoding(self) -> int:
        rows: int = len(self._generation_batch)
        return rows

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed so far, of all rows."""
        tokens: int = self._counters.prompt_tokens
        return tokens

    @property
    def prefilling(self) -> int:
        """Rows that have a share in the next chunk."""
        room = self.completion_batch_size - self.decoding
        waiting = len(self._prompt_batch) + len(self._unprocessed_sequences)
        rows: int = min(waiting, self.prefill_batch_size, room)
        return max(0, rows)

    def content_of(self, uid: int) -> tuple[list[Any], list[int]]:
        """A copy of the row's cache as it is now, and the tokens that it holds."""
        cache, tokens = self.extract_cache([uid])[uid]
        return cache, tokens


class _Early(msgspec.Struct, frozen=True):
    """A prompt's beginning whose cache is kept once so many of its new tokens are computed."""

    tokens: list[int]
    progress: int


class TextDecoder:
    """Rows on mlx_lm's BatchGenerator: per-row samplers and processors are its own."""

    def __init__(
        self,
        model: Any,
        ends: Sequence[int],
        rows_max: int,
        prefix_bytes_max: int,
        now_s: Callable[[], float] = perf_counter,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        self._ends = StopSequences([(token,) for token in ends])
        self._store = make_store(make_prompt_cache(model), prefix_bytes_max)
        if shelf is not None and isinstance(self._store, PrefixTree):
            self._store = KeptOnDisk(self._store, shelf)
        self._pace = Pace()
        self._now_s = now_s
        self._rows: dict[int, Row] = {}
        self._early: dict[int, _Early] = {}
        self._batch = _Batch(
            model,
            sampler=GREEDY,
            completion_batch_size=rows_max,
            prefill_batch_size=min(PREFILL_ROWS, rows_max),
        )

    def insert(self, row: Row) -> int:
        inputs: TextInputs = row.extra
        tokens = row.prompt + row.decoded
        found = Found() if self._store is None else self._store.find(tokens)
        stop = self._early_stop(tokens, found.tokens, inputs.cut)
        (uid,) = self._batch.insert_segments(
            [[tokens[found.tokens : stop], tokens[stop:]]],
            max_tokens=[row.tokens_max - len(row.decoded)],
            caches=[found.cache],
            all_tokens=[tokens[: found.tokens]],
            samplers=[inputs.drawing.sampler(len(row.decoded))],
            logits_processors=[inputs.drawing.processors()],
            stop_sequences=[self._ends],
        )
        if not row.decoded:
            row.cached = found.tokens
        self._rows[uid] = row
        if stop < len(tokens):
            self._early[uid] = _Early(tokens[:stop], stop - found.tokens)
        return int(uid)

    def defers(self, row: Row) -> bool:
        """Rows with one long beginning in common compute it once, even if they come together."""
        if self._store is None or not self._early:
            return False
        tokens = row.prompt + row.decoded
        known = self._store.find(tokens).tokens
        return any(
            common_tokens(early.tokens, tokens[:-1]) - known >= KEPT_EARLY_TOKENS
            for early in self._early.values()
            if self._store.cuts_anywhere or tokens[: len(early.tokens)] == early.tokens
        )

    def remove(self, uid: int) -> None:
        del self._rows[uid]
        self._early.pop(uid, None)
        if self._store is not None:
            cache, tokens = self._batch.content_of(uid)
            if tokens:
                self._store.keep(tokens, lambda: cache)
        self._batch.remove([uid])

    def next(self) -> list[Token | RowFailed]:
        decoding, before = self._batch.decoding, self._batch.prompt_tokens
        chunk = self._pace.chunk_tokens(decoding)
        self._batch.bound_prefill(max(1, chunk // max(1, self._batch.prefilling)))
        began_s = self._now_s()
        prompts, responses = self._batch.next()
        took_s = self._now_s() - began_s
        self._pace.took(took_s, decoding, self._batch.prompt_tokens - before)
        for prompt in prompts:
            self._keep_early(prompt)
        return [self._token(response) for response in responses]

    def keep_within(self, bytes_max: int) -> None:
        if self._store is not None:
            self._store.trim(bytes_max)

    def put_away(self) -> bool:
        return self._store is not None and self._store.put_away()

    def close(self) -> None:
        self._batch.close()

    def _early_stop(self, tokens: list[int], found: int, cut: int | None) -> int:
        """Where to halt in the prompt so that the cache can be kept; its length for nowhere."""
        if self._store is None:
            return len(tokens)
        if self._store.cuts_anywhere:
            last = len(tokens) - 1
            return last if last - found >= KEPT_EARLY_TOKENS else len(tokens)
        return cut if cut is not None and found < cut < len(tokens) else len(tokens)

    def _keep_early(self, prompt: Any) -> None:
        early = self._early.get(prompt.uid)
        if early is not None and prompt.progress[0] >= early.progress:
            del self._early[prompt.uid]
            if self._store is not None and prompt.progress[0] == early.progress:
                self._store.keep(early.tokens, lambda: self._batch.content_of(prompt.uid)[0])

    def _token(self, response: Any) -> Token | RowFailed:
        inputs: TextInputs = self._rows[response.uid].extra
        wanted = inputs.logprobs
        scores = None
        if wanted is not None:
            scores = read_scores(response.logprobs, response.token, wanted)
        if response.finish_reason is not None:
            del self._rows[response.uid]
            self._early.pop(response.uid, None)
            if self._store is not None:
                self._store.keep(response.all_tokens, lambda: response.prompt_cache)
        elif inputs.drawing.error:
            self.remove(response.uid)
            return RowFailed(response.uid, ValueError(inputs.drawing.error))
        return Token(response.uid, response.token, response.finish_reason, scores)
