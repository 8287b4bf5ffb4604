"""``/v1/completions``: pure translation both ways, for prompts without a chat template."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from daemon.wire import data as d
from http_bridge.decode import decode_body
from http_bridge.errors import refuse
from http_bridge.naming import Need
from http_bridge.openai_common import (
    check_common,
    priority_of,
    sampling_of,
    stops_of,
    ttl_s_of,
)
from http_bridge.openai_reply import ChunkedReply, token_text
from http_bridge.openai_schema import CompletionRequest, completion_decoder
from http_bridge.plan import Answer, Plan

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
    priority = priority_of(request.priority)
    plan = Plan(
        model=request.model,
        needs=_needs(request),
        generate=d.Generate(
            lease="",
            request=request_id,
            prompt=_prompt(request),
            sampling=sampling_of(request),
            max_tokens=request.max_tokens or MAX_TOKENS_DEFAULT,
            stop=stops_of(request),
            logprobs=request.logprobs,
            priority=priority,
        ),
        stream=bool(request.stream),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority,
        choices=request.n or 1,
    )
    options = request.stream_options
    return plan, options is not None and bool(options.include_usage)


def _check(request: CompletionRequest) -> None:
    check_common(request)
    if request.echo:
        raise refuse("echo", "the prompt cannot be repeated; leave it out")
    if request.best_of not in {None, request.n or 1}:
        raise refuse("best_of", "every choice is answered; send n alone")
    if request.suffix:
        raise refuse("suffix", "text cannot be inserted before a suffix; leave it out")


def _needs(request: CompletionRequest) -> tuple[Need, ...]:
    text = Need(capability="text")
    if request.logprobs is None:
        return (text,)
    return text, Need(capability="logprobs", field="logprobs")


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


class CompletionReply(ChunkedReply):
    """Completions as OpenAI's text_completion chunks, or as one object."""

    whole_kind = chunk_kind = "text_completion"
    member = b'"text":'
    nothing = b'""'

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:
        self._offsets = [0] * self._choices
        return super().begin(model, prompt_tokens)

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:
        if not delta.text and not delta.logprobs:
            return b""
        logprobs = b"null"
        if delta.logprobs:
            offset = self._offsets[choice]
            shown, self._offsets[choice] = logprobs_object(delta.logprobs, offset)
            logprobs = _json.encode(shown)
        return self.chunk(_json.encode(delta.text), choice, logprobs=logprobs)

    def choice(self, answer: Answer) -> dict[str, Any]:
        logprobs = logprobs_object(answer.logprobs)[0] if self._logprobs else None
        return {"text": answer.text, "logprobs": logprobs}

    def finish_reason(self, done: d.Done) -> str:
        # This protocol has no tool calls: a model that stopped for one has simply stopped.
        return "length" if done.finish_reason == "length" else "stop"


def logprobs_object(
    tokens: Sequence[d.TokenLogprob], offset: int = 0
) -> tuple[dict[str, Any], int]:
    """This endpoint's older form of log probabilities, and where the next token begins.

    Args:
        offset: Characters of the answer before the first of these tokens.
    """
    texts = [token_text(token.token) for token in tokens]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    shown = {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {token_text(other.token): other.logprob for other in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }
    return shown, offset
