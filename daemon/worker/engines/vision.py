"""Vision-language models, on mlx_vlm's continuous batching."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from mlx_lm import tokenizer_utils
from mlx_lm.utils import load_tokenizer
from mlx_vlm.utils import load, prepare_inputs, should_add_special_tokens
from PIL.Image import Image

from daemon.wire.data import Begin, ChatMessage, CountTokens, Generate, WorkRequest
from daemon.worker.engines.answers import calls_tools, make_output
from daemon.worker.engines.base import Progress
from daemon.worker.engines.constraint import Vocabulary
from daemon.worker.engines.conversation import (
    answer_tokens,
    as_generate,
    check_request,
    invalid,
    prompt_ids,
    template_messages,
    vocabulary,
)
from daemon.worker.engines.drawing import make_drawing
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.generating import GeneratingEngine, Generator
from daemon.worker.engines.images import (
    decode_again,
    decode_images,
    decoded_ahead,
    has_images,
    image_files,
)
from daemon.worker.engines.memo import TowerMemo
from daemon.worker.engines.rows import Row
from daemon.worker.engines.visionbatch import VisionDecoder, VisionInputs
from daemon.worker.engines.visionpictures import PictureLine, Pictures, Tensors
from daemon.worker.engines.weights import read_weights


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
        with _already_read(processor):
            tokenizer = load_tokenizer(
                folder,
                {"trust_remote_code": begin.allow_code},
                eos_token_ids=getattr(model.config, "eos_token_id", None),
            )
        read_weights(model, progress)
        memo = _remember_pictures(model, begin.kv_bytes)
        return _VisionGenerator(begin, model, processor, tokenizer, config, context_tokens, memo)


@contextmanager
def _already_read(processor: Any) -> Iterator[None]:
    """For the length of the block, mlx_lm finds the tokenizer that the processor holds.

    mlx_lm knows a tokenizer's stop tokens, its tool calls and how it streams, but only of one
    that it reads itself, which for a large vocabulary takes a second and as many bytes again.
    """
    held = getattr(processor, "tokenizer", None)
    if not isinstance(held, tokenizer_utils.PreTrainedTokenizerFast):
        yield
        return
    theirs = tokenizer_utils.AutoTokenizer
    tokenizer_utils.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: held)
    try:
        yield
    finally:
        tokenizer_utils.AutoTokenizer = theirs


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
        self._kept_bytes = begin.kv_bytes
        self._model = model
        self._processor = processor
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._vocabulary = Vocabulary(tokenizer, vocabulary(config, len(tokenizer)))
        self._defaults = read_json(Path(begin.path) / "generation_config.json") or {}
        self._marks = _picture_marks(processor)
        self._pictures = PictureLine()

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        if not isinstance(request, Generate | CountTokens) or not has_images(request.messages):
            return None
        return lambda: msgspec.structs.replace(
            request, messages=decoded_ahead(request.messages or ())
        )

    def prepare(self, request: Generate) -> Row:
        check_request(request, tools=calls_tools(self._tokenizer))
        files = image_files(request.messages)
        self._pictures.check_room(files)
        prompt, tensors, text = self._prompt(request)
        tokens_max = answer_tokens(request, len(prompt), self._context_tokens)
        drawing = make_drawing(request, prompt, self._tokenizer, self._defaults, self._vocabulary)
        pictures = None
        if files:
            pictures = Pictures(files, partial(self._tensors, text))
            self._pictures.add(pictures, tensors)
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
            extra=VisionInputs(drawing, pictures, request.logprobs),
            priority=request.priority,
        )

    def rest(self) -> None:
        self._vocabulary.warm()

    def count(self, request: CountTokens) -> int:
        asked = as_generate(request)
        check_request(asked, tools=calls_tools(self._tokenizer))
        return len(self._prompt(asked)[0])

    def make_decoder(self) -> VisionDecoder:
        return VisionDecoder(
            self._model, self._processor, self._rows_max, self._memo, self._kept_bytes
        )

    def _prompt(self, request: Generate) -> tuple[list[int], Tensors, str]:
        """The prompt's tokens and, if it has pictures, their tensors and the text about them."""
        if isinstance(request.prompt, str):
            return list(self._tokenizer.encode(request.prompt)), {}, ""
        if request.prompt is not None:
            return prompt_ids(request.prompt, self._vocabulary.size), {}, ""
        messages = request.messages or ()
        images = decode_images(messages)
        text = self._render(messages, request, len(images))
        return *self._inputs(text, images), text

    def _tensors(self, text: str, files: Sequence[bytes]) -> Tensors:
        """Those of :meth:`_prompt` once more, of the same text and pictures."""
        return self._inputs(text, decode_again(files))[1]

    def _inputs(self, text: str, images: list[Image]) -> tuple[list[int], Tensors]:
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
