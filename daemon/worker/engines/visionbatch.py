"""mlx_vlm's continuous batching as a ``Decoder``, with a prefix cache in front of it."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import mlx.core as mx
import msgspec
from mlx_vlm.generate.ar import BatchGenerator, GenerationBatch, PromptProcessingBatch

from daemon.worker.engines.drawing import Drawing
from daemon.worker.engines.logprobs import Recorder, read_scores
from daemon.worker.engines.memo import TowerMemo
from daemon.worker.engines.prefix import Found, PrefixStore
from daemon.worker.engines.rows import Row, RowFailed, Token
from daemon.worker.engines.sampling import GREEDY, forcing
from daemon.worker.engines.visionpictures import Pictures, Tensors
from daemon.worker.engines.visionprefix import (
    kept_cache,
    make_vision_store,
    position_names,
    rest_of,
    usable,
    warm_cache,
)

PREFILL_TOKENS: Final = 512
"""One prefill chunk, as for text models."""


class VisionInputs(msgspec.Struct, frozen=True):
    """What a row needs besides its tokens; ``pictures`` if it has any."""

    drawing: Drawing
    pictures: Pictures | None
    logprobs: int | None = None


class _Prompt(msgspec.Struct, frozen=True):
    """A prompt as the language model is given it.

    Attributes:
        names: Keys of its positions in the prefix store; None where it has no place there.
    """

    tokens: list[int]
    embedded: dict[str, Any]
    names: list[int] | None


class _Generation(GenerationBatch):  # type: ignore[misc]
    """The rows that are decoded; shows the cache of each one that leaves.

    Attributes:
        fed: Tokens behind the prompt that are in a row's cache.
        left: Called with a row's uid, those tokens, and what gives its cache.
    """

    fed: dict[int, list[int]]
    left: Callable[[int, list[int], Callable[[], list[Any]]], None]

    def _step(self) -> Any:
        stepped = super()._step()
        for uid, token in zip(self.uids, stepped[0], strict=True):
            self.fed.setdefault(uid, []).append(token)
        return stepped

    def filter(self, keep: list[int]) -> None:
        for row in sorted(set(range(len(self.uids))) - set(keep)):
            uid = self.uids[row]
            self.left(uid, self.fed.pop(uid, []), partial(kept_cache, self.prompt_cache, row))
        super().filter(keep)


class _Batch(BatchGenerator):  # type: ignore[misc]
    """The library's batch; what is needed of its inside is here and nowhere else.

    It knows prefix caches, but only its own, which take no bound from outside and hide
    the prompt from logits processors. Their entrance is used for ours.
    """

    def __init__(
        self, language_model: Any, processor: Any, rows_max: int, store: PrefixStore | None
    ) -> None:
        super().__init__(
            language_model,
            processor,
            sampler=GREEDY,
            completion_batch_size=rows_max,
            prefill_batch_size=1,
            prefill_step_size=PREFILL_TOKENS,
            compute_logprobs=False,
        )
        self._store = store
        self._names: dict[int, list[int] | None] = {}
        self._found: dict[int, Found] = {}
        generation = _Generation.empty(
            self.model, self.sampler, self.tokenizer.stopping_criteria, compute_logprobs=False
        )
        generation.fed, generation.left = {}, self._left
        self._generation_batch = generation

    def put_in(self, prompt: _Prompt, found: Found, tokens_max: int, processors: list[Any]) -> int:
        """Add a row that begins behind what was found of it."""
        (uid,) = self.insert(
            [prompt.tokens],
            max_tokens=[tokens_max],
            prompt_kwargs=[prompt.embedded],
            logits_processors=[processors or None],
        )
        self._names[uid], self._found[uid] = prompt.names, found
        return int(uid)

    def take_out(self, uid: int) -> None:
        self.remove(uid)
        self._names.pop(uid, None)
        self._found.pop(uid, None)

    def _build_mixed_prompt_batch(self, sequences: list[Any]) -> PromptProcessingBatch | None:
        """The library asks here for a batch that begins with a cache; None for one without."""
        ((uid, tokens, tokens_max, embedded, processors, criteria),) = sequences
        found = self._found.pop(uid)
        if found.cache is None:
            return None
        rest = rest_of(embedded, found.tokens)
        batch = PromptProcessingBatch(
            self.model,
            [uid],
            [tokens[found.tokens :]],
            [tokens_max],
            rest.pop("inputs_embeds"),
            rest,
            logits_processors=[processors],
            thinking_budget_criteria=[criteria],
            prefill_step_size=self.prefill_step_size,
            warm_cache=warm_cache(found.cache),
        )
        if processors:
            # Penalties and grammars look at the whole prompt, not only at what is computed.
            batch._token_context = [list(tokens)]  # noqa: SLF001
        return batch

    def _extend_generation_batch(self, gen_batch: GenerationBatch) -> None:
        """A prompt is computed: what is in its cache may serve the next row at once."""
        for row, uid in enumerate(gen_batch.uids):
            self._keep(uid, [], partial(kept_cache, gen_batch.prompt_cache, row))
        self._generation_batch.extend(gen_batch)

    def _left(self, uid: int, fed: list[int], take: Callable[[], list[Any]]) -> None:
        self._keep(uid, fed, take)
        del self._names[uid]

    def _keep(self, uid: int, fed: list[int], take: Callable[[], list[Any]]) -> None:
        names = self._names[uid]
        if self._store is not None and names is not None:
            self._store.keep(names + fed, take)


class VisionDecoder:
    """mlx_vlm's BatchGenerator, with a line of its own in front.

    The library sorts its own line by length and would start short prompts first for ever;
    here a row is handed over only when nothing is prefilled, in order of arrival. Its
    pictures are encoded then, so that a step encodes the pictures of one request at most.

    The library has one sampler for all rows. It is the greedy one, and a row that samples
    draws its token in a logits processor, which is per row (:func:`forcing`).

    Args:
        kept_bytes_max: What may be kept for later rows, caches and pictures together.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        rows_max: int,
        memo: TowerMemo | None,
        kept_bytes_max: int,
    ) -> None:
        self._model = model
        self._memo = memo
        self._line: deque[tuple[int, Row]] = deque()
        self._uids = 0
        self._inner: dict[int, int] = {}
        self._outer: dict[int, int] = {}
        self._rows: dict[int, Row] = {}
        self._recorders: dict[int, Recorder] = {}
        self._store = make_vision_store(model.language_model, kept_bytes_max)
        self._batch = _Batch(model.language_model, processor, rows_max, self._store)

    def defers(self, row: Row) -> bool:  # noqa: ARG002  (prompts are computed one by one)
        return False

    def insert(self, row: Row) -> int:
        self._uids += 1
        self._rows[self._uids] = row
        self._line.append((self._uids, row))
        return self._uids

    def remove(self, uid: int) -> None:
        self._forget(uid)
        inner = self._inner.pop(uid, None)
        if inner is None:
            self._line = deque(entry for entry in self._line if entry[0] != uid)
        else:
            del self._outer[inner]
            self._batch.take_out(inner)

    def next(self) -> list[Token | RowFailed]:
        results: list[Token | RowFailed] = []
        if self._line and not self._batch.has_pending_prompts:
            uid, row = self._line.popleft()
            try:
                self._hand_over(uid, row)
            except Exception as error:  # noqa: BLE001  (the row's own failure, reported as such)
                self._forget(uid)
                results.append(RowFailed(uid, error))
        _, responses = self._batch.next()
        return results + [self._token(response) for response in responses]

    def put_away(self) -> bool:
        return False

    def keep_within(self, bytes_max: int) -> None:
        """Pictures have at most half: a prefix without its pictures is still of use."""
        remembered = 0
        if self._memo is not None:
            self._memo.trim(bytes_max if self._store is None else bytes_max // 2)
            remembered = self._memo.nbytes
        if self._store is not None:
            self._store.trim(bytes_max - remembered)

    def close(self) -> None:
        self._batch.close()

    def _hand_over(self, uid: int, row: Row) -> None:
        inputs: VisionInputs = row.extra
        tensors = {} if inputs.pictures is None else inputs.pictures.take()
        prompt = self._embed(row.prompt + row.decoded, tensors)
        found = self._find(prompt)
        if not row.decoded:
            row.cached = found.tokens
        sampler = inputs.drawing.sampler(len(row.decoded))
        processors = inputs.drawing.processors()
        if inputs.logprobs is not None:
            recorder = self._recorders[uid] = Recorder()
            processors.append(recorder)
        if sampler is not GREEDY:
            processors.append(forcing(sampler))
        inner = self._batch.put_in(prompt, found, row.tokens_max - len(row.decoded), processors)
        self._inner[uid] = inner
        self._outer[inner] = uid

    def _find(self, prompt: _Prompt) -> Found:
        if self._store is None or prompt.names is None:
            return Found()
        found = self._store.find(prompt.names)
        return found if usable(prompt.names, found.tokens, prompt.embedded) else Found()

    def _embed(self, tokens: list[int], tensors: Tensors) -> _Prompt:
        """Pictures and tokens as embeddings, and the positions that go with them."""
        ids, mask = mx.array([tokens]), mx.ones((1, len(tokens)))
        rest = {key: value for key, value in tensors.items() if key != "pixel_values"}
        plain = None
        if tensors and self._store is not None:
            plain = self._model.get_input_embeddings(ids, None, mask=mask).inputs_embeds
        features = self._model.get_input_embeddings(
            ids, tensors.get("pixel_values"), mask=mask, **rest
        )
        embedded = {key: value for key, value in features.to_dict().items() if value is not None}
        mx.eval([value for value in embedded.values() if isinstance(value, mx.array)])
        names = None if self._store is None else position_names(tokens, plain, embedded)
        return _Prompt(tokens, {**rest, **embedded}, names)

    def _token(self, response: Any) -> Token | RowFailed:
        uid = self._outer[response.uid]
        inputs: VisionInputs = self._rows[uid].extra
        scores = None
        if inputs.logprobs is not None:
            scores = read_scores(self._recorders[uid].next(), response.token, inputs.logprobs)
        if response.finish_reason is not None:
            del self._outer[response.uid], self._inner[uid]
            self._forget(uid)
        elif inputs.drawing.error:
            self.remove(uid)
            return RowFailed(uid, ValueError(inputs.drawing.error))
        return Token(uid, response.token, response.finish_reason, scores)

    def _forget(self, uid: int) -> None:
        self._rows.pop(uid, None)
        self._recorders.pop(uid, None)
