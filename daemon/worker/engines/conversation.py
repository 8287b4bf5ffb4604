"""Conversations and prompts, checked and put into the shape that chat templates read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from daemon.wire.data import ChatMessage, CountTokens, Generate, ImagePart, TextPart, ToolCall
from daemon.wire.errors import Code, MlxdError

_RESERVED_KWARGS: Final = frozenset(
    {
        "conversation",
        "messages",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "processor_kwargs",
    }
)
"""Arguments of apply_chat_template that are mlxd's to set."""


LOGPROBS_MAX: Final = 20
"""Alternatives a token; OpenAI's bound for top_logprobs."""


def invalid(message: str, field: str) -> MlxdError:
    """An ``invalid_request`` about ``field``."""
    return MlxdError(Code.INVALID_REQUEST, message, field=field)


def as_generate(request: CountTokens) -> Generate:
    """A conversation to be counted as the request whose prompt it would be."""
    return Generate(
        lease=request.lease,
        messages=request.messages,
        template_kwargs=request.template_kwargs,
        tools=request.tools,
    )


def check_request(request: Generate, *, tools: bool) -> None:
    """Refuse what no engine could honour.

    Args:
        tools: Whether the model can call tools.

    Raises:
        MlxdError: ``invalid_request`` naming the field.
    """
    if (request.messages is None) == (request.prompt is None):
        raise invalid("give either messages or prompt, not both and not neither", "messages")
    if request.messages is not None and not request.messages:
        raise invalid("the conversation has no messages; give at least one", "messages")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise invalid(f"max_tokens must be at least 1, not {request.max_tokens}", "max_tokens")
    if request.logprobs is not None and not 0 <= request.logprobs <= LOGPROBS_MAX:
        raise invalid(f"logprobs must be between 0 and {LOGPROBS_MAX}", "logprobs")
    if request.tool_calls_max is not None and request.tool_calls_max < 1:
        raise invalid("tool_calls_max must be at least 1", "tool_calls_max")
    if not request.tools and (request.call_one_of or request.strict_tools):
        raise invalid("a call is asked for, but there are no tools", "tools")
    if request.tools and request.messages is None:
        raise invalid("tools need messages, not a plain prompt", "tools")
    if request.tools and not tools:
        raise invalid(
            "this model cannot call tools: its files name no format for them; use a model "
            "whose chat template has tools",
            "tools",
        )
    for name in request.template_kwargs or {}:
        if name in _RESERVED_KWARGS:
            raise invalid(f'"{name}" is not a variable of a chat template', "template_kwargs")


def refuse_images(messages: Sequence[ChatMessage], model: str) -> None:
    """For models that only read text.

    Raises:
        MlxdError: ``invalid_request`` naming the first picture's place.
    """
    for i, message in enumerate(messages):
        for j, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                raise invalid(
                    f'model "{model}" reads text only; use a vision model for pictures',
                    f"messages[{i}].content[{j}]",
                )


def template_messages(messages: Sequence[ChatMessage], *, parts: bool) -> list[dict[str, Any]]:
    """Messages as chat templates read them (the Hugging Face convention).

    Args:
        parts: Content of messages with pictures as a list of parts in their order, with
            ``{"type": "image"}`` where a picture stands; else all content is plain text.

    Raises:
        MlxdError: ``invalid_request`` for tool calls whose arguments are not JSON.
    """
    return [_message(i, message, parts=parts) for i, message in enumerate(messages)]


def _message(i: int, message: ChatMessage, *, parts: bool) -> dict[str, Any]:
    shaped: dict[str, Any] = {"role": message.role, "content": _content(message, parts=parts)}
    if message.reasoning is not None:
        shaped["reasoning_content"] = message.reasoning
    if message.tool_calls:
        shaped["tool_calls"] = [
            _tool_call(call, f"messages[{i}].tool_calls[{k}].arguments")
            for k, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        shaped["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        shaped["name"] = message.name
    return shaped


def _content(message: ChatMessage, *, parts: bool) -> str | list[dict[str, str]]:
    if parts and any(isinstance(part, ImagePart) for part in message.parts):
        return [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
            for part in message.parts
        ]
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def _tool_call(call: ToolCall, field: str) -> dict[str, Any]:
    """Templates iterate over arguments, so they get the object and not its JSON text."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError as error:
        raise invalid(f"a tool call's arguments are not JSON: {error}", field) from error
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def answer_tokens(request: Generate, prompt_tokens: int, context_tokens: int) -> int:
    """How many tokens the answer may have.

    Raises:
        MlxdError: ``invalid_request`` with the numbers, if prompt and answer do not fit.
    """
    if prompt_tokens == 0:
        raise invalid("the prompt is empty; give at least one token", _prompt_field(request))
    room = context_tokens - prompt_tokens
    if room < 1:
        raise invalid(
            f"the prompt has {prompt_tokens} tokens and the context holds {context_tokens} for "
            "prompt and answer; shorten the prompt or raise context_tokens and kv_tokens",
            _prompt_field(request),
        )
    if request.max_tokens is None:
        return room
    if request.max_tokens > room:
        raise invalid(
            f"{prompt_tokens} prompt tokens and an answer of {request.max_tokens} are more than "
            f"the {context_tokens} that the context holds; ask for at most {room}",
            "max_tokens",
        )
    return request.max_tokens


def prompt_ids(ids: Sequence[int], vocab_size: int) -> list[int]:
    """A prompt given as token ids, checked against the vocabulary.

    Raises:
        MlxdError: ``invalid_request`` naming the first id out of range.
    """
    for i, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise invalid(
                f"token {token} is not in the vocabulary of {vocab_size} tokens", f"prompt[{i}]"
            )
    return list(ids)


def vocabulary(config: Mapping[str, Any], tokenizer_size: int) -> int:
    """How many logits the model gives: ids from here on do not exist."""
    text = config.get("text_config")
    for holder in (config, text if isinstance(text, Mapping) else {}):
        size = holder.get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    return tokenizer_size


def _prompt_field(request: Generate) -> str:
    return "messages" if request.messages is not None else "prompt"
