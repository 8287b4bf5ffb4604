"""``/v1/responses``: a worker's frames as OpenAI's events, or as one response. Pure.

The order of events is the one of
https://platform.openai.com/docs/api-reference/responses-streaming, numbered from 0:
``response.created``, ``response.in_progress``, each item from ``response.output_item.added`` to
``response.output_item.done``, and one of ``response.completed``, ``.incomplete`` or ``.failed``.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import HANDLING, Fault
from http_bridge.errors import openai_code
from http_bridge.openai_reply import logprobs_of
from http_bridge.openai_responses_schema import ResponsesRequest
from http_bridge.plan import Answer
from http_bridge.sse import comment

_json: Final = msgspec.json.Encoder()


class ResponsesReply:
    """One response as events, or as one object.

    Args:
        request_id: Without a prefix; the ids of the response and of its items hold it.
        request: What was asked, for the response to repeat.
    """

    def __init__(self, *, request_id: str, created_s: int, request: ResponsesRequest) -> None:
        self._id = request_id
        self._echo = {"created_at": created_s, **_echo(request)}
        self._model = request.model
        self._begun = False
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: str | None = None
        self._text: list[str] = []
        self._logprobs: list[d.TokenLogprob] = []
        self._reasoning_tokens = 0

    def waiting(self, note: str) -> bytes:
        return comment(note)

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:  # noqa: ARG002 - usage has it
        self._model = model
        self._begun = True
        response = self._response("in_progress")
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:  # noqa: ARG002 - there is one
        events = b""
        if delta.reasoning:
            self._reasoning_tokens = delta.tokens
            events += self._open_item("reasoning")
            events += self._part_event("response.reasoning_text.delta", delta=delta.reasoning)
            self._text.append(delta.reasoning)
        if delta.text or delta.logprobs:
            events += self._open_item("message")
            logprobs = logprobs_of(delta.logprobs)
            events += self._part_event(
                "response.output_text.delta", delta=delta.text, logprobs=logprobs
            )
            self._text.append(delta.text)
            self._logprobs += delta.logprobs
        for call in delta.tool_calls:
            events += self._close_item() + self._call(call)
        return events

    def end(self, done: d.Done, choice: int = 0) -> bytes:  # noqa: ARG002 - there is one
        status = "incomplete" if done.finish_reason == "length" else "completed"
        events = self._close_item(status)
        response = self._ended(done, status)
        return events + self._event(f"response.{status}", response=response)

    def failure(self, fault: Fault) -> bytes:
        if not self._begun:
            code = openai_code(fault)
            return self._event("error", code=code, message=fault.message, param=fault.field)
        limited = HANDLING[fault.code].http_status == 429
        response = self._response("failed")
        response["error"] = {
            "code": "rate_limit_exceeded" if limited else "server_error",
            "message": f"{fault.message} ({openai_code(fault)})",
        }
        return self._close_item("incomplete") + self._event("response.failed", response=response)

    def whole(self, model: str, answers: Sequence[Answer]) -> bytes:
        (answer,) = answers
        self._model = model
        for delta in answer.deltas:
            self.delta(delta)
        status = "incomplete" if answer.done.finish_reason == "length" else "completed"
        self._close_item(status)
        return _json.encode(self._ended(answer.done, status))

    def _ended(self, done: d.Done, status: str) -> dict[str, Any]:
        response = self._response(status)
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response["usage"] = self._usage(done.usage)
        return response

    # --- items ------------------------------------------------------------------------

    def _open_item(self, kind: str) -> bytes:
        if self._open == kind:
            return b""
        ended = self._close_item()
        self._open, self._text, self._logprobs = kind, [], []
        added = self._event(
            "response.output_item.added", output_index=self._index, item=self._item("in_progress")
        )
        return ended + added + self._part_event("response.content_part.added", part=self._part())

    def _close_item(self, status: str = "completed") -> bytes:
        if self._open is None:
            return b""
        part, text = self._part(), "".join(self._text)
        if self._open == "message":
            logprobs = part["logprobs"]
            events = self._part_event("response.output_text.done", text=text, logprobs=logprobs)
        else:
            events = self._part_event("response.reasoning_text.done", text=text)
        events += self._part_event("response.content_part.done", part=part)
        item = self._item(status, part)
        events += self._event("response.output_item.done", output_index=self._index, item=item)
        self._output.append(item)
        self._open = None
        return events

    def _call(self, call: d.ToolCall) -> bytes:
        item = {
            "type": "function_call",
            "id": self._item_id("fc"),
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        where = {"output_index": self._index, "item_id": item["id"]}
        events = self._event("response.output_item.added", output_index=self._index, item=item)
        kind = "response.function_call_arguments"
        events += self._event(f"{kind}.delta", **where, delta=call.arguments)
        events += self._event(f"{kind}.done", **where, name=call.name, arguments=call.arguments)
        item = {**item, "arguments": call.arguments, "status": "completed"}
        events += self._event("response.output_item.done", output_index=self._index, item=item)
        self._output.append(item)
        return events

    @property
    def _index(self) -> int:
        return len(self._output)

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}_{self._id}_{self._index}"

    def _item(self, status: str, part: dict[str, Any] | None = None) -> dict[str, Any]:
        content = [] if part is None else [part]
        head: dict[str, Any]
        if self._open == "message":
            head = {"type": "message", "id": self._item_id("msg"), "role": "assistant"}
        else:
            head = {"type": "reasoning", "id": self._item_id("rs"), "summary": []}
        return {**head, "status": status, "content": content}

    def _part(self) -> dict[str, Any]:
        text = "".join(self._text)
        if self._open == "reasoning":
            return {"type": "reasoning_text", "text": text}
        logprobs = logprobs_of(self._logprobs)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    # --- events -----------------------------------------------------------------------

    def _part_event(self, kind: str, **fields: Any) -> bytes:
        item_id = self._item_id("msg" if self._open == "message" else "rs")
        where = {"item_id": item_id, "output_index": self._index, "content_index": 0}
        return self._event(kind, **where, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _json.encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "status": status,
            "model": self._model,
            "output": list(self._output),
            "error": None,
            "incomplete_details": None,
            "usage": None,
            **self._echo,
        }

    def _usage(self, usage: d.Usage) -> dict[str, Any]:
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.completion_tokens,
            # Decoded until the last of the thinking, its markers included.
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


def _echo(request: ResponsesRequest) -> dict[str, Any]:
    """What a response repeats of its request."""
    asked = msgspec.to_builtins(request)
    reasoning, text = asked["reasoning"] or {}, asked["text"] or {}
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_logprobs": request.top_logprobs or 0,
        "tools": [{**tool, "strict": bool(tool["strict"])} for tool in asked["tools"] or ()],
        "tool_choice": asked["tool_choice"] or "auto",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "text": {"format": text.get("format") or {"type": "text"}},
        "metadata": request.metadata or {},
        "user": request.user,
        "background": False,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "truncation": "disabled",
    }
