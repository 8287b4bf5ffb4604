"""What the two OpenAI text protocols share, both ways."""

from typing import Any, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import MlxdError
from daemon.wire.units import parse_duration_s
from http_bridge.errors import refuse
from http_bridge.openai_schema import TextRequest

DONE_EVENT: Final = b"data: [DONE]\n\n"


def check_common(request: TextRequest) -> None:
    """Refuse what is well-formed and cannot be honoured.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter.
    """
    if request.n not in {None, 1}:
        raise refuse("n", f"{request.n} choices are not supported; send 1, or ask several times")
    if request.stream_options is not None and not request.stream:
        raise refuse("stream_options", "only together with stream: true")


def sampling_of(request: TextRequest) -> d.Sampling:
    """How tokens are drawn; what was not given stays the model's own default."""
    return d.Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
    )


def stops_of(request: TextRequest) -> tuple[str, ...]:
    """The stop texts as a tuple."""
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else request.stop


def ttl_s_of(request: TextRequest) -> float | None:
    """Idle seconds from ``ttl`` or ``keep_alive``.

    Raises:
        MlxdError: ``invalid_request`` if they differ, or if ``keep_alive`` is no length of time.
    """
    if request.keep_alive is None:
        return request.ttl
    try:
        keep_alive_s = parse_duration_s(request.keep_alive, field="keep_alive")
    except MlxdError as error:
        raise refuse(
            "keep_alive",
            f"{request.keep_alive!r} is not a length of time; send seconds or text such as "
            '"5m" (to keep a model for ever, pin it: mlxctl load --pin)',
        ) from error
    if request.ttl not in {None, keep_alive_s}:
        raise refuse("ttl", "differs from keep_alive; send one of them")
    return keep_alive_s


def usage_of(usage: d.Usage) -> dict[str, Any]:
    """OpenAI's usage object, from the engine's counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class ChunkFrame:
    """The unchanging bytes around the changing part of a stream's chunks.

    They are encoded once a stream, so that a token costs one small string.
    """

    def __init__(self, head: dict[str, Any], *, include_usage: bool) -> None:
        opened = msgspec.json.encode(head)[:-1]
        usage = b',"usage":null' if include_usage else b""
        self._before = b"data: " + opened + b',"choices":[{"index":0,'
        self._after = b"}]" + usage + b"}\n\n"
        self._bare = b"data: " + opened + b',"choices":[],"usage":'

    def chunk(self, fields: bytes) -> bytes:
        """One event; ``fields`` are the choice's members, as JSON without braces."""
        return self._before + fields + self._after

    def usage_chunk(self, usage: d.Usage) -> bytes:
        """The event without choices that carries the counts."""
        return self._bare + msgspec.json.encode(usage_of(usage)) + b"}\n\n"
