"""Text models, on mlx_lm's continuous batching."""

import os
from pathlib import Path
from typing import Any, Final

from mlx_lm.generate import BatchGenerator, StopSequences
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_adapters, load_model, load_tokenizer

from daemon.wire.data import Begin, DataRequest, Generate
from daemon.worker.engines.answers import calls_tools, make_output
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.conversation import (
    answer_tokens,
    check_request,
    invalid,
    prompt_ids,
    refuse_images,
    template_messages,
    vocabulary,
)
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.generating import GeneratingEngine, Generator
from daemon.worker.engines.rows import Row, Token
from daemon.worker.engines.sampling import GREEDY, Settings, make_processors, make_sampler, resolve
from daemon.worker.engines.weights import read_weights

PREFILL_TOKENS: Final = 512
"""One prefill chunk: with one decode step, the longest that a cancel waits."""

PREFILL_ROWS: Final = 8


class TextEngine(GeneratingEngine):
    """One mlx_lm model."""

    def open_model(
        self, begin: Begin, config: dict[str, Any], context_tokens: int, progress: Progress
    ) -> Generator:
        folder = Path(begin.path)
        model, config = load_model(folder, lazy=True)
        if begin.adapter is not None:
            model = load_adapters(model, begin.adapter)
            model.eval()
        tokenizer = load_tokenizer(
            folder, {"trust_remote_code": False}, eos_token_ids=config.get("eos_token_id")
        )
        read_weights(model, progress)
        _check_batchable(model, folder)
        return _TextGenerator(begin, model, tokenizer, config, context_tokens)


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
    ) -> None:
        self._name = begin.name
        self._rows_max = max(1, begin.rows_max)
        self._model = model
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._vocab_size = vocabulary(config, len(tokenizer))
        self._defaults = read_json(Path(begin.path) / "generation_config.json") or {}

    def prepare(self, request: DataRequest) -> Row:
        check_request(request, tools=calls_tools(self._tokenizer))
        settings = resolve(request.sampling, self._defaults, self._vocab_size)
        prompt = self._prompt(request)
        tokenizer = self._tokenizer
        return Row(
            prompt=prompt,
            tokens_max=answer_tokens(request, len(prompt), self._context_tokens),
            output=make_output(
                tokenizer, tokenizer.detokenizer, request, prompt, f"call_{os.urandom(8).hex()}"
            ),
            extra=settings,
        )

    def make_decoder(self) -> "_TextDecoder":
        return _TextDecoder(self._model, self._tokenizer, self._vocab_size, self._rows_max)

    def _prompt(self, request: Generate) -> list[int]:
        if isinstance(request.prompt, str):
            return list(self._tokenizer.encode(request.prompt))
        if request.prompt is not None:
            return prompt_ids(request.prompt, self._vocab_size)
        messages = request.messages or ()
        refuse_images(messages, self._name)
        if not self._tokenizer.has_chat_template:
            raise invalid(
                f'model "{self._name}" has no chat template; send a plain prompt, or use an '
                "instruction-tuned model",
                "messages",
            )
        shaped = template_messages(messages, parts=False)
        try:
            rendered = self._tokenizer.apply_chat_template(
                shaped,
                tools=list(request.tools) or None,
                add_generation_prompt=True,
                **(request.template_kwargs or {}),
            )
        except Exception as error:
            # Templates are programs from the model's folder; what they raise is about the input.
            raise invalid(f"the model's chat template refuses this: {error}", "messages") from error
        return list(rendered)


class _TextDecoder:
    """mlx_lm's BatchGenerator: per-row samplers and processors are its own."""

    def __init__(self, model: Any, tokenizer: Any, vocab_size: int, rows_max: int) -> None:
        self._vocab_size = vocab_size
        self._ends = StopSequences([(token,) for token in tokenizer.eos_token_ids])
        self._generator = BatchGenerator(
            model,
            sampler=GREEDY,
            completion_batch_size=rows_max,
            prefill_batch_size=min(PREFILL_ROWS, rows_max),
            prefill_step_size=PREFILL_TOKENS,
        )

    def insert(self, row: Row) -> int:
        settings: Settings = row.extra
        (uid,) = self._generator.insert(
            [row.prompt + row.decoded],
            max_tokens=[row.tokens_max - len(row.decoded)],
            samplers=[make_sampler(settings, self._vocab_size, len(row.decoded))],
            logits_processors=[make_processors(settings, len(row.prompt))],
            stop_sequences=[self._ends],
        )
        return int(uid)

    def remove(self, uid: int) -> None:
        self._generator.remove([uid])

    def next(self) -> list[Token]:
        _, responses = self._generator.next()
        return [Token(r.uid, r.token, r.finish_reason) for r in responses]

    def close(self) -> None:
        self._generator.close()
