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

    def insert_again(self, uid: int, cache: list[Any], content: list[int], **options: Any) -> None:
        """Put a row that has left back under its old uid, before all that wait.

        Args:
            cache: Holds all tokens of ``content`` but the last.
            options: As :meth:`insert_segments` takes them.
        """
        self.insert_segments([[content[-1:]]], caches=[cache], all_tokens=[content[:-1]], **options)
        entry = self._unprocessed_sequences.pop()
        self._unprocessed_sequences.appendleft((uid, *entry[1:]))

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
        self._rejoining = 0
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
            caches=[found.cache],
            all_tokens=[tokens[: found.tokens]],
            **self._options(row, len(row.decoded)),
        )
        if not row.decoded:
            row.cached = found.tokens
        self._rows[uid] = row
        if stop < len(tokens):
            self._early[uid] = _Early(tokens[:stop], stop - found.tokens)
        return int(uid)

    def _options(self, row: Row, decoded: int) -> dict[str, Any]:
        """How a row goes on that has ``decoded`` tokens of its answer."""
        drawing: Drawing = row.extra.drawing
        return {
            "max_tokens": [row.tokens_max - decoded],
            "samplers": [drawing.sampler(decoded)],
            "logits_processors": [drawing.processors()],
            "stop_sequences": [self._ends],
        }

    @property
    def alone(self) -> tuple[int, Row] | None:
        """The only row with its uid, once it is decoded; None if there are others, or none."""
        if len(self._rows) == self._batch.decoding == 1:
            return next(iter(self._rows.items()))
        return None

    @property
    def empty(self) -> bool:
        return not self._rows

    def lend(self, uid: int) -> list[Any]:
        """Take a row that is decoded out, to be decoded elsewhere; gives its cache, which holds
        all of its tokens. It comes back by :meth:`rejoin`, or ends elsewhere: :meth:`keep`."""
        cache, _ = self._batch.content_of(uid)
        self._batch.remove([uid])
        del self._rows[uid]
        return cache

    def rejoin(self, uid: int, row: Row, cache: list[Any], content: list[int]) -> None:
        """Take a row back that was lent; the next :meth:`next` gives no token of it, the one
        after does.

        Args:
            cache: Holds all tokens of ``content``, prompt and answer so far, but the last.
        """
        options = self._options(row, len(content) - len(row.prompt))
        self._batch.insert_again(uid, cache, content, **options)
        self._rows[uid] = row
        self._rejoining = 1

    def keep(self, tokens: list[int], cache: list[Any]) -> None:
        """Remember a cache that holds exactly ``tokens`` for later rows."""
        if self._store is not None and tokens:
            self._store.keep(tokens, lambda: cache)

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
            self.keep(tokens, cache)
        self._batch.remove([uid])

    def next(self) -> list[Token | RowFailed]:
        decoding = self._batch.decoding + self._rejoining
        joining = max(1, self._batch.prefilling - self._rejoining)
        self._rejoining, before = 0, self._batch.prompt_tokens
        chunk = self._pace.chunk_tokens(decoding, joining)
        self._batch.bound_prefill(max(1, chunk // joining))
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

    @property
    def stream(self) -> Any:
        """MLX's stream that all of this is computed on."""
        return self._batch.stream

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
