"""mlx_lm's continuous batching as a ``Decoder``, with a prefix cache in front of it."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final

import msgspec
from mlx_lm.generate import BatchGenerator, StopSequences
from mlx_lm.models.cache import make_prompt_cache

from daemon.worker.engines.logprobs import Alternatives
from daemon.worker.engines.pace import Pace
from daemon.worker.engines.prefix import Found, make_store
from daemon.worker.engines.rows import Row, Token
from daemon.worker.engines.sampling import GREEDY, Processor, Sampler

PREFILL_ROWS: Final = 8
"""Prompts that are prefilled together; a chunk is shared out among them."""

KEPT_EARLY_TOKENS: Final = 256
"""From so many new prompt tokens on, a row's cache is kept as soon as its prompt is
computed, so that a second request with that prompt need not wait for the answer's end."""


class TextInputs(msgspec.Struct, frozen=True):
    """What a row needs besides its tokens.

    Attributes:
        sampler: Makes the sampler for an answer that goes on at this position.
        processors: Makes the logits processors for a row that is put in.
        logprobs: How many alternatives a token; None for no log probabilities.
        cut: A position in the prompt behind which later turns may differ, such as where the
            template opens the answer; for caches that cannot be cut anywhere.
    """

    sampler: Callable[[int], Sampler]
    processors: Callable[[], list[Processor]]
    logprobs: int | None = None
    cut: int | None = None


class _Batch(BatchGenerator):  # type: ignore[misc]  (mlx_lm is untyped)
    """The library's batch; what is needed of its inside is here and nowhere else."""

    def bound_prefill(self, row_tokens: int) -> None:
        """At most so many prompt tokens a row in the next step."""
        self.prefill_step_size = row_tokens
        self._prompt_batch.prefill_step_size = row_tokens

    @property
    def decoding(self) -> int:
        return len(self._generation_batch)

    @property
    def prefilling(self) -> int:
        """Rows that have a share in the next chunk."""
        room = self.completion_batch_size - self.decoding
        waiting = len(self._prompt_batch) + len(self._unprocessed_sequences)
        return max(0, min(waiting, self.prefill_batch_size, room))

    def cache_of(self, uid: int) -> list[Any]:
        """A copy of the row's cache as it is now."""
        cache: list[Any] = self.extract_cache([uid])[uid][0]
        return cache


class TextDecoder:
    """Rows on mlx_lm's BatchGenerator: per-row samplers and processors are its own."""

    def __init__(
        self,
        model: Any,
        ends: Sequence[int],
        rows_max: int,
        prefix_bytes_max: int,
        now_s: Callable[[], float] = perf_counter,
    ) -> None:
        self._ends = StopSequences([(token,) for token in ends])
        self._store = make_store(make_prompt_cache(model), prefix_bytes_max)
        self._pace = Pace()
        self._now_s = now_s
        self._rows: dict[int, Row] = {}
        self._early: dict[int, int] = {}
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
        segments = self._segments(row, tokens, found.tokens)
        (uid,) = self._batch.insert_segments(
            [segments],
            max_tokens=[row.tokens_max - len(row.decoded)],
            caches=[found.cache],
            all_tokens=[tokens[: found.tokens]],
            samplers=[inputs.sampler(len(row.decoded))],
            logits_processors=[inputs.processors()],
            stop_sequences=[self._ends],
        )
        if not row.decoded:
            row.cached = found.tokens
        self._rows[uid] = row
        return int(uid)

    def remove(self, uid: int) -> None:
        row = self._rows.pop(uid)
        self._early.pop(uid, None)
        (kept,) = self._batch.extract_cache([uid]).values() if self._store else ((None, ()),)
        cache, tokens = kept
        if self._store is not None and len(tokens) > row.cached:
            self._store.keep(tokens, lambda: cache)
        self._batch.remove([uid])

    def next(self) -> list[Token]:
        chunk = self._pace.chunk_tokens(self._batch.decoding)
        self._batch.bound_prefill(max(1, chunk // max(1, self._batch.prefilling)))
        decoded, began_s = self._batch.decoding, self._now_s()
        prompts, responses = self._batch.next()
        computed = self._follow(prompts)
        self._pace.took(self._now_s() - began_s, decoded, computed)
        return [self._token(response) for response in responses]

    def close(self) -> None:
        self._batch.close()
