"""``/v1/completions``: pure translation both ways, for prompts without a chat template."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.decode import decode_body
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
from http_bridge.openai_schema import CompletionRequest, completion_decoder
from http_bridge.plan import Plan

MAX_TOKENS_DEFAULT: Final = 16
"""OpenAI's documented default for this endpoint."""

_json: Final = msgspec.json.Encoder()


def read_completion(body: bytes, request_id: str) -> tuple[Plan, bool]:
    """The plan of a request body, and whether its stream ends with a usage chunk.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(completion_decoder, body)
    _check(request)
    plan = Plan(
        model=request.model,
        needs=("text",),
        generate=d.Generate(
            lease="",
            request=request_id,
            prompt=_prompt(request),
            sampling=sampling_of(request),
            max_tokens=request.max_tokens or MAX_TOKENS_DEFAULT,
            stop=stops_of(request),
        ),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request),
    )
    options = request.stream_options
    return plan, options is not None and options.include_usage


def _check(request: CompletionRequest) -> None:
    check_common(request)
    if request.echo:
        raise refuse("echo", "the prompt cannot be repeated; leave it out")
    if request.best_of not in {None, 1}:
        raise refuse("best_of", "not supported; send 1 or leave it out")
    if request.logprobs is not None:
        raise refuse("logprobs", "log probabilities are not supported; leave it out")
    if request.suffix:
        raise refuse("suffix", "text cannot be inserted before a suffix; leave it out")


def _prompt(request: CompletionRequest) -> str | tuple[int, ...]:
    if isinstance(request.prompt, str):
        return request.prompt
    texts = [item for item in request.prompt if isinstance(item, str)]
    token_ids = [item for item in request.prompt if isinstance(item, int)]
    if not texts:
        return tuple(token_ids)
    if len(texts) == 1 and not token_ids:
        return texts[0]
    raise refuse("prompt", "one prompt a request: a text, or one list of token ids")


class CompletionReply:
    """One completion as OpenAI's text_completion chunks, or as one object."""

    def __init__(self, *, request_id: str, created_s: int, include_usage: bool) -> None:
        self._id = request_id
        self._created_s = created_s
        self._include_usage = include_usage
        self._frame: ChunkFrame

    def begin(self, model: str) -> bytes:
        self._frame = ChunkFrame(self._head(model), include_usage=self._include_usage)
        return b""

    def delta(self, delta: d.Delta) -> bytes:
        return self._chunk(_json.encode(delta.text)) if delta.text else b""

    def end(self, done: d.Done) -> bytes:
        finish = self._chunk(b'""', b'"' + _finish(done).encode() + b'"')
        usage = self._frame.usage_chunk(done.usage) if self._include_usage else b""
        return finish + usage + DONE_EVENT

    def failure(self, fault: Fault) -> bytes:
        return b"data: " + error_body(fault) + b"\n\n"

    def whole(self, model: str, deltas: Sequence[d.Delta], done: d.Done) -> bytes:
        choice = {
            "index": 0,
            "text": "".join(delta.text for delta in deltas),
            "logprobs": None,
            "finish_reason": _finish(done),
        }
        return _json.encode(
            {**self._head(model), "choices": [choice], "usage": usage_of(done.usage)}
        )

    def _head(self, model: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created_s,
            "model": model,
        }

    def _chunk(self, text: bytes, finish_reason: bytes = b"null") -> bytes:
        return self._frame.chunk(
            b'"text":' + text + b',"logprobs":null,"finish_reason":' + finish_reason
        )


def _finish(done: d.Done) -> str:
    # This protocol has no tool calls: a model that stopped for one has simply stopped.
    return "length" if done.finish_reason == "length" else "stop"
