"""``/v1/chat/completions``: a worker's frames as OpenAI's chunks, or as one object. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.errors import error_body
from http_bridge.openai_common import ChunkFrame, Ending, logprobs_of, usage_of
from http_bridge.plan import Answer, total_usage
from http_bridge.sse import comment

_json: Final = msgspec.json.Encoder()


class ChatReply:
    """Completions as OpenAI's chunks, or as one object.

    Args:
        choices: How many there will be.
        logprobs: Whether they were asked for.
    """

    def __init__(
        self,
        *,
        request_id: str,
        created_s: int,
        include_usage: bool,
        choices: int = 1,
        logprobs: bool = False,
    ) -> None:
        self._id = request_id
        self._created_s = created_s
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._calls = [0] * choices
        self._ending = Ending(choices, include_usage=include_usage)
        self._frame: ChunkFrame

    def waiting(self, note: str) -> bytes:
        return comment(note)

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:  # noqa: ARG002 - usage has it
        self._frame = ChunkFrame(
            self._head("chat.completion.chunk", model), include_usage=self._include_usage
        )
        role = b'{"role":"assistant","content":""}'
        return b"".join(self._chunk(role, choice) for choice in range(len(self._calls)))

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:
        if delta.reasoning or delta.tool_calls or delta.logprobs:
            logprobs = self._logprobs_json(delta.logprobs)
            return self._chunk(_json.encode(self._fields(delta, choice)), choice, logprobs=logprobs)
        if not delta.text:
            return b""
        return self._chunk(b'{"content":' + _json.encode(delta.text) + b"}", choice)

    def end(self, done: d.Done, choice: int = 0) -> bytes:
        finish = self._chunk(b"{}", choice, finish_reason=b'"' + done.finish_reason.encode() + b'"')
        return finish + self._ending.after(done, choice, self._frame)

    def failure(self, fault: Fault) -> bytes:
        return b"data: " + error_body(fault) + b"\n\n"

    def whole(self, model: str, answers: Sequence[Answer]) -> bytes:
        usage = total_usage([answer.done.usage for answer in answers])
        return _json.encode(
            {
                **self._head("chat.completion", model),
                "choices": [self._choice(*indexed) for indexed in enumerate(answers)],
                "usage": usage_of(usage),
            }
        )

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        text, calls = answer.text, answer.tool_calls
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [_call(call) for call in calls]
        logprobs = {"content": logprobs_of(answer.logprobs), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs if self._logprobs else None,
            "finish_reason": answer.done.finish_reason,
        }

    def _head(self, kind: str, model: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created_s, "model": model}

    def _chunk(
        self,
        delta: bytes,
        choice: int,
        *,
        logprobs: bytes = b"null",
        finish_reason: bytes = b"null",
    ) -> bytes:
        fields = b'"delta":' + delta + b',"logprobs":' + logprobs
        return self._frame.chunk(fields + b',"finish_reason":' + finish_reason, choice)

    def _logprobs_json(self, tokens: Sequence[d.TokenLogprob]) -> bytes:
        if not tokens:
            return b"null"
        return _json.encode({"content": logprobs_of(tokens), "refusal": None})

    def _fields(self, delta: d.Delta, choice: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if delta.reasoning:
            fields["reasoning_content"] = delta.reasoning
        if delta.text:
            fields["content"] = delta.text
        if delta.tool_calls:
            first = self._calls[choice]
            fields["tool_calls"] = [
                {"index": first + index, **_call(call)}
                for index, call in enumerate(delta.tool_calls)
            ]
            self._calls[choice] += len(delta.tool_calls)
        return fields


def _call(call: d.ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
