"""Text models, on mlx_lm's continuous batching."""

import os
from pathlib import Path
from typing import Any

from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_adapters, load_model, load_tokenizer

from daemon.wire.data import Begin, CountTokens, Generate
from daemon.wire.errors import MlxdError
from daemon.worker.engines.answers import calls_tools, make_output
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.batching import TextDecoder, TextInputs
from daemon.worker.engines.constraint import Vocabulary
from daemon.worker.engines.conversation import (
    answer_tokens,
    as_generate,
    check_request,
    invalid,
    prompt_ids,
    refuse_images,
    template_messages,
    vocabulary,
)
from daemon.worker.engines.draftmodel import Draft, DraftModel, check_cache, open_draft
from daemon.worker.engines.drawing import make_drawing
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.generating import GeneratingEngine, Generator
from daemon.worker.engines.prefix import how_to_keep
from daemon.worker.engines.prefixdisk import open_shelf
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
        self._finds_cuts = how_to_keep(make_prompt_cache(model)) == "checkpoints"
        self._defaults = read_json(Path(begin.path) / "generation_config.json") or {}

    def prepare(self, request: Generate) -> Row:
        check_request(request, tools=calls_tools(self._tokenizer))
        prompt = self._prompt(request)
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
            extra=TextInputs(drawing, request.logprobs, self._cut(request, prompt)),
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
        asked = as_generate(request)
        check_request(asked, tools=calls_tools(self._tokenizer))
        return len(self._prompt(asked))

    def _prompt(self, request: Generate) -> list[int]:
        if isinstance(request.prompt, str):
            return list(self._tokenizer.encode(request.prompt))
        if request.prompt is not None:
            return prompt_ids(request.prompt, self._vocabulary.size)
        messages = request.messages or ()
        refuse_images(messages, self._name)
        if not self._tokenizer.has_chat_template:
            raise invalid(
                f'model "{self._name}" has no chat template; send a plain prompt, or use an '
                "instruction-tuned model",
                "messages",
            )
        return self._render(request, opened=True)

    def _cut(self, request: Generate, prompt: list[int]) -> int | None:
        """Where the template opens the answer: what comes there differs in later turns."""
        if request.messages is None or not self._finds_cuts:
            return None
        closed = self._render(request, opened=False)
        pairs = zip(prompt, closed, strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), len(closed))

    def _render(self, request: Generate, *, opened: bool) -> list[int]:
        """The conversation in tokens, with or without the opening of the answer."""
        try:
            rendered = self._tokenizer.apply_chat_template(
                template_messages(request.messages or (), parts=False),
                tools=list(request.tools) or None,
                add_generation_prompt=opened,
                **(request.template_kwargs or {}),
            )
        except MlxdError:
            raise
        except Exception as error:
            # Templates are programs from the model's folder; what they raise is about the input.
            raise invalid(f"the model's chat template refuses this: {error}", "messages") from error
        return list(rendered)
