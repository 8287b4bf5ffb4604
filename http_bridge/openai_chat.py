"""``/v1/chat/completions``: pure translation both ways.

A body becomes a plan for the pool and a request for a worker; the worker's frames become
chunks or one completion. Nothing here does I/O, reads a clock or draws an id.
"""

import binascii
import re
from collections.abc import Sequence
from typing import Any, Final, assert_never

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.decode import check_portable, decode_body
from http_bridge.errors import error_body, refuse
from http_bridge.openai_common import (
    DONE_EVENT,
    ChunkFrame,
    check_common,
    sampling_of,
    stops_of,
    ttl_s_of,
    usage_of,
)
from http_bridge.openai_schema import (
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    chat_decoder,
)
from http_bridge.plan import Plan

_DATA_URL: Final = re.compile(r"data:(?P<mime>[^;,]*)(?P<base64>;base64)?,", re.IGNORECASE)
_IMAGE_MIMES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"})
_json: Final = msgspec.json.Encoder()


def read_chat(body: bytes, request_id: str) -> tuple[Plan, bool]:
    """The plan of a request body, and whether its stream ends with a usage chunk.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(chat_decoder, body)
    _check(request)
    messages = tuple(
        _message(message, f"messages[{index}]") for index, message in enumerate(request.messages)
    )
    tools = _tools(request)
    plan = Plan(
        model=request.model,
        needs=_needs(messages, tools),
        generate=d.Generate(
            lease="",
            request=request_id,
            messages=messages,
            template_kwargs=request.chat_template_kwargs,
            tools=tools,
            sampling=sampling_of(request),
            max_tokens=_max_tokens(request),
            stop=stops_of(request),
        ),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request),
    )
    options = request.stream_options
    return plan, options is not None and options.include_usage


def _check(request: ChatRequest) -> None:
    check_common(request)
    if request.logprobs or request.top_logprobs is not None:
        field = "logprobs" if request.logprobs else "top_logprobs"
        raise refuse(field, "log probabilities are not supported; leave it out")
    if request.store:
        raise refuse("store", "nothing is stored here; send false or leave it out")
    if request.parallel_tool_calls is False:
        raise refuse("parallel_tool_calls", "cannot be switched off; leave it out")
    wanted = request.response_format
    if wanted is not None and wanted != {"type": "text"}:
        raise refuse(
            "response_format",
            f'only {{"type": "text"}} is supported, not {wanted.get("type")!r}; leave it out',
        )
    if request.tool_choice not in (None, "auto", "none"):
        raise refuse(
            "tool_choice",
            'not supported yet, except "auto" and "none"; say in the prompt which tool to use',
        )
    if request.chat_template_kwargs is not None:
        check_portable(request.chat_template_kwargs, "chat_template_kwargs")


def _max_tokens(request: ChatRequest) -> int | None:
    older, newer = request.max_tokens, request.max_completion_tokens
    if None not in {older, newer} and older != newer:
        raise refuse("max_tokens", "differs from max_completion_tokens; send one of them")
    return older if newer is None else newer


def _needs(
    messages: tuple[d.ChatMessage, ...], tools: tuple[dict[str, Any], ...]
) -> tuple[str, ...]:
    """What the model must be able to do; the first that it cannot is what the refusal names."""
    pictures = any(isinstance(part, d.ImagePart) for m in messages for part in m.parts)
    return (*(["vision"] if pictures else []), "chat", *(["tools"] if tools else []))


def _tools(request: ChatRequest) -> tuple[dict[str, Any], ...]:
    """The tools for the chat template; none at all if the model may not call them."""
    tools = request.tools or ()
    for index, tool in enumerate(tools):
        if tool.function.strict:
            raise refuse(
                f"tools[{index}].function.strict",
                "arguments cannot be constrained to the schema yet; leave it out",
            )
        check_portable(tool.function.parameters, f"tools[{index}].function.parameters")
    return () if request.tool_choice == "none" else tuple(msgspec.to_builtins(t) for t in tools)


# --- messages -------------------------------------------------------------------


def _message(message: Message, path: str) -> d.ChatMessage:
    match message:
        case SystemMessage() | DeveloperMessage():
            return d.ChatMessage(
                role="system", parts=_parts(message.content, path), name=message.name
            )
        case UserMessage():
            return d.ChatMessage(
                role="user", parts=_parts(message.content, path), name=message.name
            )
        case AssistantMessage():
            return _assistant(message, path)
        case ToolMessage():
            return d.ChatMessage(
                role="tool",
                parts=_parts(message.content, path),
                tool_call_id=message.tool_call_id,
                name=message.name,
            )
        case _:
            assert_never(message)


def _assistant(message: AssistantMessage, path: str) -> d.ChatMessage:
    if message.content is None and not message.tool_calls:
        raise refuse(f"{path}.content", "required, unless there are tool_calls")
    return d.ChatMessage(
        role="assistant",
        parts=() if message.content is None else _parts(message.content, path),
        reasoning=message.reasoning_content,
        tool_calls=tuple(
            d.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in message.tool_calls or ()
        ),
        name=message.name,
    )


def _parts(content: str | tuple[TextPart | ImagePart, ...], path: str) -> tuple[d.ContentPart, ...]:
    if isinstance(content, str):
        return (d.TextPart(text=content),)
    if not content:
        raise refuse(f"{path}.content", "an empty list; send text or at least one part")
    return tuple(_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))


def _part(part: TextPart | ImagePart, path: str) -> d.ContentPart:
    if isinstance(part, TextPart):
        return d.TextPart(text=part.text)
    if part.image_url.detail not in {None, "auto"}:
        raise refuse(
            f"{path}.image_url.detail",
            "pictures are seen at the model's own resolution; send auto or leave it out",
        )
    return d.ImagePart(data=read_data_url(part.image_url.url, f"{path}.image_url.url"))


def read_data_url(url: str, field: str) -> bytes:
    """The picture file in a base64 ``data:`` URL (RFC 2397); nothing is ever fetched.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: another scheme, another kind of
            content than PNG, JPEG, WebP and GIF, or text that is not base64.
    """
    found = _DATA_URL.match(url, 0, 256)
    if found is None:
        shown = url[:32] + ("…" if len(url) > 32 else "")
        raise refuse(
            field,
            f"only data: URLs are accepted (data:image/png;base64,…), not {shown!r}; "
            "read the picture and send its bytes",
        )
    if found["mime"].lower() not in _IMAGE_MIMES:
        raise refuse(
            field,
            f"{found['mime'] or 'no type'!r} is not accepted; send image/png, image/jpeg, "
            "image/webp or image/gif",
        )
    if not found["base64"]:
        raise refuse(field, "a picture has to be base64: data:image/png;base64,…")
    try:
        data = binascii.a2b_base64(url[found.end() :], strict_mode=True)
    except ValueError as error:
        reason = str(error).rstrip(".").lower()
        raise refuse(field, f"not valid base64 ({reason}); encode the picture again") from error
    if not data:
        raise refuse(field, "holds no bytes; send a picture")
    return data


# --- the way back -----------------------------------------------------------------


class ChatReply:
    """One completion as OpenAI's chunks, or as one object."""

    def __init__(self, *, request_id: str, created_s: int, include_usage: bool) -> None:
        self._id = request_id
        self._created_s = created_s
        self._include_usage = include_usage
        self._calls = 0
        self._frame: ChunkFrame

    def begin(self, model: str) -> bytes:
        self._frame = ChunkFrame(
            self._head("chat.completion.chunk", model), include_usage=self._include_usage
        )
        return self._chunk(b'{"role":"assistant","content":""}')

    def delta(self, delta: d.Delta) -> bytes:
        if delta.reasoning or delta.tool_calls:
            return self._chunk(_json.encode(self._fields(delta)))
        return self._chunk(b'{"content":' + _json.encode(delta.text) + b"}") if delta.text else b""

    def end(self, done: d.Done) -> bytes:
        finish = self._chunk(b"{}", b'"' + done.finish_reason.encode() + b'"')
        usage = self._frame.usage_chunk(done.usage) if self._include_usage else b""
        return finish + usage + DONE_EVENT

    def failure(self, fault: Fault) -> bytes:
        return b"data: " + error_body(fault) + b"\n\n"

    def whole(self, model: str, deltas: Sequence[d.Delta], done: d.Done) -> bytes:
        text = "".join(delta.text for delta in deltas)
        reasoning = "".join(delta.reasoning for delta in deltas)
        calls = [call for delta in deltas for call in delta.tool_calls]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [_call(call) for call in calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": done.finish_reason,
        }
        head = self._head("chat.completion", model)
        return _json.encode({**head, "choices": [choice], "usage": usage_of(done.usage)})

    def _head(self, kind: str, model: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created_s, "model": model}

    def _chunk(self, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        return self._frame.chunk(
            b'"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish_reason
        )

    def _fields(self, delta: d.Delta) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if delta.reasoning:
            fields["reasoning_content"] = delta.reasoning
        if delta.text:
            fields["content"] = delta.text
        if delta.tool_calls:
            fields["tool_calls"] = [
                {"index": self._calls + index, **_call(call)}
                for index, call in enumerate(delta.tool_calls)
            ]
            self._calls += len(delta.tool_calls)
        return fields


def _call(call: d.ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
