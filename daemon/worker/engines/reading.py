"""Conversations to prompt tokens; long ones in the thread beside the steps of running rows."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from daemon.wire.data import CountTokens, Generate, TextPart, WorkRequest
from daemon.wire.errors import MlxdError
from daemon.worker.engines.answers import calls_tools
from daemon.worker.engines.conversation import (
    as_generate,
    check_request,
    invalid,
    prompt_ids,
    refuse_images,
    template_messages,
)

LONG_CHARS: Final = 16_384
"""So much text takes some 5 ms to tokenize, and more of it holds up whoever waits for a step."""


class Prompt(msgspec.Struct, frozen=True):
    """A request's prompt.

    Attributes:
        cut: Where the template opens the answer: what comes there differs in later turns. None
            if nobody asks for it, or for a plain prompt.
    """

    tokens: list[int]
    cut: int | None = None


class _ReadGenerate(Generate, tag="generate", frozen=True, kw_only=True):
    read: Prompt


class _ReadCount(CountTokens, tag="count_tokens", frozen=True, kw_only=True):
    read: Prompt


class Reader:
    """Reads the requests of one model; for any thread.

    Args:
        name: The model's, for messages.
        vocabulary_size: The model's number of token ids.
        finds_cuts: Whether prompts of conversations have a ``cut``.
    """

    def __init__(
        self, tokenizer: Any, name: str, vocabulary_size: int, *, finds_cuts: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._vocabulary_size = vocabulary_size
        self._finds_cuts = finds_cuts
        # The first encoding may change the tokenizer's settings; then two threads may encode.
        tokenizer.encode("")

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        """The reading of a long request, for another thread; see
        :meth:`~daemon.worker.engines.base.Engine.ahead`."""
        if not isinstance(request, Generate | CountTokens) or _chars(request) < LONG_CHARS:
            return None
        kind = _ReadGenerate if isinstance(request, Generate) else _ReadCount
        return lambda: kind(**msgspec.structs.asdict(request), read=self.read(request))

    def read(self, request: Generate | CountTokens) -> Prompt:
        """A request's prompt, once the request is checked; at once if it was read ahead.

        Raises:
            MlxdError: What is wrong with the request.
        """
        if isinstance(request, _ReadGenerate | _ReadCount):
            return request.read
        asked = as_generate(request) if isinstance(request, CountTokens) else request
        check_request(asked, tools=calls_tools(self._tokenizer))
        tokens = self._tokens(asked)
        return Prompt(tokens, None if asked is not request else self._cut(asked, tokens))

    def _tokens(self, request: Generate) -> list[int]:
        if isinstance(request.prompt, str):
            return list(self._tokenizer.encode(request.prompt))
        if request.prompt is not None:
            return prompt_ids(request.prompt, self._vocabulary_size)
        refuse_images(request.messages or (), self._name)
        if not self._tokenizer.has_chat_template:
            raise invalid(
                f'model "{self._name}" has no chat template; send a plain prompt, or use an '
                "instruction-tuned model",
                "messages",
            )
        return self._render(request, opened=True)

    def _cut(self, request: Generate, tokens: list[int]) -> int | None:
        if request.messages is None or not self._finds_cuts:
            return None
        closed = self._render(request, opened=False)
        pairs = zip(tokens, closed, strict=False)
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


def _chars(request: Generate | CountTokens) -> int:
    """How much text is to be tokenized; token ids are none."""
    prompt = request.prompt if isinstance(request, Generate) else None
    chars = len(prompt) if isinstance(prompt, str) else 0
    for message in request.messages or ():
        chars += sum(len(part.text) for part in message.parts if isinstance(part, TextPart))
        chars += sum(len(call.arguments) for call in message.tool_calls)
    return chars + sum(len(msgspec.json.encode(tool)) for tool in request.tools)
