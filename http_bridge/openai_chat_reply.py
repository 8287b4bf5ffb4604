"""``/v1/chat/completions``: a worker's frames as OpenAI's chunks, or as one object. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from http_bridge.openai_reply import ChunkedReply, logprobs_of
from http_bridge.plan import Answer

_json: Final = msgspec.json.Encoder()


class ChatReply(ChunkedReply):
    """Completions as OpenAI's chunks, or as one object."""

    whole_kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    member = b'"delta":'
    nothing = b"{}"

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:
        super().begin(model, prompt_tokens)
        self._calls = [0] * self._choices
        role = b'{"role":"assistant","content":""}'
        return b"".join(self.chunk(role, choice) for choice in range(self._choices))

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:
        if delta.reasoning or delta.tool_calls or delta.logprobs:
            logprobs = self._logprobs_json(delta.logprobs)
            return self.chunk(_json.encode(self._fields(delta, choice)), choice, logprobs=logprobs)
        if not delta.text:
            return b""
        return self.chunk(b'{"content":' + _json.encode(delta.text) + b"}", choice)

    def choice(self, answer: Answer) -> dict[str, Any]:
        text, calls = answer.text, answer.tool_calls
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [_call(call) for call in calls]
        logprobs = {"content": logprobs_of(answer.logprobs), "refusal": None}
        return {"message": message, "logprobs": logprobs if self._logprobs else None}

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
