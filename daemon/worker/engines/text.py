"""Text models, on mlx_lm's continuous batching."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_adapters, load_model, load_tokenizer

from daemon.wire.data import Begin, CountTokens, Generate, WorkRequest
from daemon.worker.engines.answers import make_output
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.batching import TextDecoder, TextInputs
from daemon.worker.engines.constraint import Vocabulary
from daemon.worker.engines.conversation import (
    answer_tokens,
    vocabulary,
)
from daemon.worker.engines.draftmodel import Draft, DraftModel, check_cache, open_draft
from daemon.worker.engines.drawing import make_drawing
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.generating import GeneratingEngine, Generator
from daemon.worker.engines.prefix import how_to_keep
from daemon.worker.engines.prefixdisk import open_shelf
from daemon.worker.engines.reading import Reader
from daemon.worker.engines.rows import Decoder, Row
from daemon.worker.engines.speculation import SpeculativeDecoder
from daemon.worker.engines.weights import read_weights


class TextEngine(GeneratingEngine):
    """One mlx_lm model."""

    def open_model(
        self, begin: Begin, config: dict[str, Any], context_tokens: int, progress: Progress
    ) -> Generator:
        folder = Path(begin.path)
        model, config = load_model(folder, lazy=True, trust_remote_code=begin.allow_code)
        if begin.adapter is not None:
            model = load_adapters(model, begin.adapter)
            model.eval()
        tokenizer = load_tokenizer(
            folder,
            {"trust_remote_code": begin.allow_code},
            eos_token_ids=config.get("eos_token_id"),
        )
        draft = None
        if begin.draft is not None:
            check_cache(model, folder)
            draft = open_draft(Path(begin.draft), folder, tokenizer)
        read_weights(model, progress, draft and draft.model)
        _check_batchable(model, folder)
        return _TextGenerator(begin, model, tokenizer, config, context_tokens, draft)


def _check_batchable(model: Any, folder: Path) -> None:
    for entry in make_prompt_cache(model):
        if not hasattr(entry, "merge"):
            raise LoadRefused(
                "incompatible",
                f"{folder / 'config.json'}: mlx_lm cannot batch this architecture (its cache, "
                f"{type(entry).__name__}, cannot be merged)",
            )


class _TextGenerator(Generator):
    """Requests to rows: chat template, tokens, limits, sampling."""

    def __init__(
        self,
        begin: Begin,
        model: Any,
        tokenizer: Any,
        config: dict[str, Any],
        context_tokens: int,
        draft: DraftModel | None,
    ) -> None:
        self._draft = draft
        self._guesses = begin.draft_tokens
        self._name = begin.name
        self._rows_max = max(1, begin.rows_max)
        self._model = model
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._vocabulary = Vocabulary(tokenizer, vocabulary(config, len(tokenizer)))
        self._prefix_bytes = begin.kv_bytes
        self._shelf = open_shelf(begin)
        self._defaults = read_json(Path(begin.path) / "generation_config.json") or {}
        self._reader = Reader(
            tokenizer,
            begin.name,
            self._vocabulary.size,
            finds_cuts=how_to_keep(make_prompt_cache(model)) == "checkpoints",
        )

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        return self._reader.ahead(request)

    def prepare(self, request: Generate) -> Row:
        read = self._reader.read(request)
        prompt = read.tokens
        tokens_max = answer_tokens(request, len(prompt), self._context_tokens)
        tokenizer = self._tokenizer
        drawing = make_drawing(request, prompt, tokenizer, self._defaults, self._vocabulary)
        return Row(
            prompt=prompt,
            tokens_max=tokens_max,
            output=make_output(
                tokenizer,
                tokenizer.detokenizer,
                request,
                prompt,
                f"call_{os.urandom(8).hex()}",
                self._vocabulary.token_bytes,
            ),
            extra=TextInputs(drawing, request.logprobs, read.cut),
            priority=request.priority,
        )

    def make_decoder(self) -> Decoder:
        ends = sorted(self._tokenizer.eos_token_ids)
        batch = TextDecoder(
            self._model, ends, self._rows_max, self._prefix_bytes, shelf=self._shelf
        )
        if self._draft is None:
            return batch
        draft = Draft(self._draft, self._vocabulary.size)
        return SpeculativeDecoder(batch, self._model, draft, set(ends), self._guesses)

    def rest(self) -> None:
        self._vocabulary.warm()

    def count(self, request: CountTokens) -> int:
        """Prompt tokens of a conversation, as :meth:`prepare` would have them."""
        return len(self._reader.read(request).tokens)
