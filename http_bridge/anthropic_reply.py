"""``/v1/messages``: a worker's frames as Anthropic's events, or as one message. Pure.

The events are those of https://docs.anthropic.com/en/docs/build-with-claude/streaming:
``message_start``, then for each block ``content_block_start``, ``content_block_delta`` …,
``content_block_stop``, then ``message_delta`` and ``message_stop``; ``ping`` at any time.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.errors import error_body
from http_bridge.plan import Answer
from http_bridge.sse import comment

_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'

_json: Final = msgspec.json.Encoder()


class MessagesReply:
    """One message as Anthropic's events, or as one object."""

    def __init__(self, *, request_id: str) -> None:
        self._id = request_id
        self._blocks = 0
        self._open: str | None = None

    def waiting(self, note: str) -> bytes:
        return comment(note) + _PING

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:
        message = {
            **self._head(model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(d.Usage(prompt_tokens=prompt_tokens, completion_tokens=0)),
        }
        return _event("message_start", message=message)

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:  # noqa: ARG002 - there is one
        events = b""
        if delta.reasoning:
            events += self._begin_block("thinking", {"thinking": "", "signature": ""})
            events += self._add({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            events += self._begin_block("text", {"text": ""})
            events += self._add({"type": "text_delta", "text": delta.text})
        for call in delta.tool_calls:
            events += self._end_block()
            events += self._begin_block("tool_use", {"id": call.id, "name": call.name, "input": {}})
            partial = bytes(tool_input(call)).decode()
            events += self._add({"type": "input_json_delta", "partial_json": partial})
            events += self._end_block()
        return events

    def end(self, done: d.Done, choice: int = 0) -> bytes:  # noqa: ARG002 - there is one
        last = _event("message_delta", delta=stop_of(done), usage=usage_of(done.usage))
        return self._end_block() + last + _event("message_stop")

    def failure(self, fault: Fault) -> bytes:
        return b"event: error\ndata: " + error_body(fault, anthropic=True) + b"\n\n"

    def whole(self, model: str, answers: Sequence[Answer]) -> bytes:
        (answer,) = answers
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call)}
            for call in answer.tool_calls
        ]
        return _json.encode(
            {
                **self._head(model),
                "content": content,
                **stop_of(answer.done),
                "usage": usage_of(answer.done.usage),
            }
        )

    def _head(self, model: str) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": model}

    def _begin_block(self, kind: str, fields: dict[str, Any]) -> bytes:
        if self._open == kind:
            return b""
        ended = self._end_block()
        self._open = kind
        block = {"type": kind, **fields}
        return ended + _event("content_block_start", index=self._blocks, content_block=block)

    def _add(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _end_block(self) -> bytes:
        if self._open is None:
            return b""
        ended = _event("content_block_stop", index=self._blocks)
        self._open = None
        self._blocks += 1
        return ended


def tool_input(call: d.ToolCall) -> msgspec.Raw:
    """A call's arguments as the JSON object that this protocol needs, as the model wrote it.

    What is no JSON object stands under ``_not_an_object``, as text.
    """
    try:
        msgspec.json.decode(call.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(_json.encode({"_not_an_object": call.arguments}))
    return msgspec.Raw(call.arguments.encode())


def stop_of(done: d.Done) -> dict[str, Any]:
    """Why the message ended."""
    if done.stop_text is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stop_text}
    reason = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    return {"stop_reason": reason[done.finish_reason], "stop_sequence": None}


def usage_of(usage: d.Usage) -> dict[str, Any]:
    """Anthropic's usage: ``input_tokens`` are those that did not come from a cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(kind: str, **fields: Any) -> bytes:
    data = _json.encode({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
