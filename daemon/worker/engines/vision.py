"""Vision-language models, on mlx_vlm's continuous batching."""

import os
from collections import deque
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
from mlx_lm.utils import load_tokenizer
from mlx_vlm.generate import BatchGenerator
from mlx_vlm.utils import load, prepare_inputs, should_add_special_tokens

from daemon.wire.data import Begin, ChatMessage, CountTokens, Generate
from daemon.worker.engines.answers import calls_tools, make_output
from daemon.worker.engines.base import Progress
from daemon.worker.engines.constraint import Vocabulary
from daemon.worker.engines.conversation import (
    answer_tokens,
    check_request,
    invalid,
    prompt_ids,
    template_messages,
    vocabulary,
)
from daemon.worker.engines.drawing import Drawing, make_drawing
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.generating import GeneratingEngine, Generator
from daemon.worker.engines.images import decode_images
from daemon.worker.engines.logprobs import Recorder, read_scores
from daemon.worker.engines.memo import TowerMemo
from daemon.worker.engines.rows import Row, RowFailed, Token
from daemon.worker.engines.sampling import GREEDY, forcing
from daemon.worker.engines.weights import read_weights

PREFILL_TOKENS: Final = 512
"""One prefill chunk, as for text models."""


class _Inputs(msgspec.Struct, frozen=True):
    """What a row needs besides its tokens.

    Attributes:
        tensors: The processor's output for pictures: pixel values, grids, …
    """

    drawing: Drawing
    tensors: dict[str, Any]
    logprobs: int | None = None


class VisionEngine(GeneratingEngine):
    """One mlx_vlm model."""

    def open_model(
        self, begin: Begin, config: dict[str, Any], context_tokens: int, progress: Progress
    ) -> Generator:
        folder = Path(begin.path)
        model, processor = load(
            str(folder),
            adapter_path=begin.adapter,
            lazy=True,
            trust_remote_code=begin.allow_code,
        )
        tokenizer = load_tokenizer(
            folder,
            {"trust_remote_code": begin.allow_code},
            eos_token_ids=getattr(model.config, "eos_token_id", None),
        )
        read_weights(model, progress)
        memo = _remember_pictures(model, begin.kv_bytes)
        return _VisionGenerator(begin, model, processor, tokenizer, config, context_tokens, memo)


def _remember_pictures(model: Any, bytes_max: int) -> TowerMemo | None:
    """Keep what the vision tower computes, under whichever name the model has one."""
    for name in ("vision_tower", "vision_model", "visual"):
        tower = getattr(model, name, None)
        if tower is not None and bytes_max > 0:
            memo = TowerMemo(tower, bytes_max)
            setattr(model, name, memo)
            return memo
    return None


class _VisionGenerator(Generator):
    """Requests to rows: pictures, chat template, processor, limits, sampling."""

    def __init__(
        self,
        begin: Begin,
        model: Any,
        processor: Any,
        tokenizer: Any,
        config: dict[str, Any],
        context_tokens: int,
        memo: TowerMemo | None,
    ) -> None:
        self._memo = memo
        self._name = begin.name
        self._rows_max = max(1, begin.rows_max)
        self._model = model
        self._processor = processor
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._vocabulary = Vocabulary(tokenizer, vocabulary(config, len(tokenizer)))
        self._defaults = read_json(Path(begin.path) / "generation_config.json") or {}
        self._marks = _picture_marks(processor)

    def prepare(self, request: Generate) -> Row:
        check_request(request, tools=calls_tools(self._tokenizer))
        prompt, tensors = self._prompt(request)
        tokens_max = answer_tokens(request, len(prompt), self._context_tokens)
        drawing = make_drawing(request, prompt, self._tokenizer, self._defaults, self._vocabulary)
        call_id = f"call_{os.urandom(8).hex()}"
        # Not mlx_vlm's own: that one gives nothing out until a space comes.
        detokenizer = self._tokenizer.detokenizer
        return Row(
            prompt=prompt,
            tokens_max=tokens_max,
            output=make_output(
                self._tokenizer,
                detokenizer,
                request,
                prompt,
                call_id,
                self._vocabulary.token_bytes,
            ),
            extra=_Inputs(drawing, tensors, request.logprobs),
            priority=request.priority,
        )

    def rest(self) -> None:
        self._vocabulary.warm()

    def count(self, request: CountTokens) -> int:
        asked = Generate(
            lease=request.lease,
            messages=request.messages,
            template_kwargs=request.template_kwargs,
            tools=request.tools,
        )
        check_request(asked, tools=calls_tools(self._tokenizer))
        return len(self._prompt(asked)[0])

    def make_decoder(self) -> "_VisionDecoder":
        return _VisionDecoder(self._model, self._processor, self._rows_max, self._memo)

    def _prompt(self, request: Generate) -> tuple[list[int], dict[str, Any]]:
        """The prompt's tokens and, if it has pictures, their tensors."""
        if isinstance(request.prompt, str):
            return list(self._tokenizer.encode(request.prompt)), {}
        if request.prompt is not None:
            return prompt_ids(request.prompt, self._vocabulary.size), {}
        messages = request.messages or ()
        images = decode_images(messages)
        text = self._render(messages, request, len(images))
        try:
            inputs = prepare_inputs(
                self._processor,
                images=images or None,
                prompts=[text],
                image_token_index=getattr(self._model.config, "image_token_index", None),
                add_special_tokens=self._adds_special_tokens(text),
            )
        except Exception as error:
            raise invalid(f"the model cannot take these pictures: {error}", "messages") from error
        tokens: list[int] = inputs.pop("input_ids")[0].tolist()
        inputs.pop("attention_mask", None)
        return tokens, inputs if images else {}

    def _render(self, messages: tuple[ChatMessage, ...], request: Generate, images: int) -> str:
        """The conversation as text, with the model's mark where each picture stands."""
        template = getattr(self._processor, "chat_template", None)
        if template is None and not self._tokenizer.has_chat_template:
            raise invalid(
                f'model "{self._name}" has no chat template; send a plain prompt, or use an '
                "instruction-tuned model",
                "messages",
            )
        try:
            text = self._tokenizer.apply_chat_template(
                template_messages(messages, parts=True),
                tools=list(request.tools) or None,
                add_generation_prompt=True,
                tokenize=False,
                **({} if template is None else {"chat_template": template}),
                **(request.template_kwargs or {}),
            )
        except Exception as error:
            # Templates are programs from the model's folder; what they raise is about the input.
            raise invalid(f"the model's chat template refuses this: {error}", "messages") from error
        self._check_marks(str(text), images)
        return str(text)

    def _check_marks(self, text: str, images: int) -> None:
        """One mark a picture: neither swallowed by the template nor typed by a user."""
        counts = [text.count(mark) for mark in self._marks]
        if self._marks and images not in counts:
            raise invalid(
                f"the conversation has {images} pictures, but its prompt has room for "
                f"{max(counts)}; put pictures into user messages, and leave "
                f"{' and '.join(self._marks)} out of the text",
                "messages",
            )

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer should add what the template has not written already."""
        begin = self._tokenizer.bos_token
        if begin and text.startswith(begin):
            return False
        return bool(should_add_special_tokens(self._model.config.model_type, self._processor))


def _picture_marks(processor: Any) -> tuple[str, ...]:
    """What may stand for a picture in this model's prompts."""
    tokenizer = getattr(processor, "tokenizer", processor)
    names = ("boi_token", "image_token")
    found = [getattr(owner, name, None) for owner in (processor, tokenizer) for name in names]
    return tuple(dict.fromkeys(mark for mark in found if isinstance(mark, str) and mark))


class _VisionDecoder:
    """mlx_vlm's BatchGenerator, with a line of its own in front.

    The library sorts its own line by length and would start short prompts first for ever;
    here a row is handed over only when nothing is prefilled, in order of arrival. Its
    pictures are encoded then, so that a step encodes the pictures of one request at most.

    The library has one sampler for all rows. It is the greedy one, and a row that samples
    draws its token in a logits processor, which is per row (:func:`forcing`).
    """

    def __init__(self, model: Any, processor: Any, rows_max: int, memo: TowerMemo | None) -> None:
        self._model = model
        self._memo = memo
        self._line: deque[tuple[int, Row]] = deque()
        self._uids = 0
        self._inner: dict[int, int] = {}
        self._outer: dict[int, int] = {}
        self._rows: dict[int, Row] = {}
        self._recorders: dict[int, Recorder] = {}
        self._generator = BatchGenerator(
            model.language_model,
            processor,
            sampler=GREEDY,
            completion_batch_size=rows_max,
            prefill_batch_size=1,
            prefill_step_size=PREFILL_TOKENS,
            compute_logprobs=False,
        )

    def defers(self, row: Row) -> bool:  # noqa: ARG002  (nothing is shared between rows)
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
            self._generator.remove(inner)

    def next(self) -> list[Token | RowFailed]:
        results: list[Token | RowFailed] = []
        if self._line and not self._generator.has_pending_prompts:
            uid, row = self._line.popleft()
            try:
                self._hand_over(uid, row)
            except Exception as error:  # noqa: BLE001  (the row's own failure, reported as such)
                self._forget(uid)
                results.append(RowFailed(uid, error))
        _, responses = self._generator.next()
        return results + [self._token(response) for response in responses]

    def put_away(self) -> bool:
        return False

    def keep_within(self, bytes_max: int) -> None:
        if self._memo is not None:
            self._memo.trim(bytes_max)

    def close(self) -> None:
        self._generator.close()

    def _hand_over(self, uid: int, row: Row) -> None:
        inputs: _Inputs = row.extra
        tokens = row.prompt + row.decoded
        sampler = inputs.drawing.sampler(len(row.decoded))
        processors = inputs.drawing.processors()
        if inputs.logprobs is not None:
            recorder = self._recorders[uid] = Recorder()
            processors.append(recorder)
        if sampler is not GREEDY:
            processors.append(forcing(sampler))
        (inner,) = self._generator.insert(
            [tokens],
            max_tokens=[row.tokens_max - len(row.decoded)],
            prompt_kwargs=[self._embed(tokens, inputs.tensors)],
            logits_processors=[processors or None],
        )
        self._inner[uid] = inner
        self._outer[inner] = uid

    def _embed(self, tokens: list[int], tensors: dict[str, Any]) -> dict[str, Any]:
        """Pictures and tokens as embeddings, and the positions that go with them."""
        rest = {key: value for key, value in tensors.items() if key != "pixel_values"}
        features = self._model.get_input_embeddings(
            mx.array([tokens]), tensors.get("pixel_values"), mask=mx.ones((1, len(tokens))), **rest
        )
        embedded = {key: value for key, value in features.to_dict().items() if value is not None}
        mx.eval([value for value in embedded.values() if isinstance(value, mx.array)])
        return {**rest, **embedded}

    def _token(self, response: Any) -> Token | RowFailed:
        uid = self._outer[response.uid]
        inputs: _Inputs = self._rows[uid].extra
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
