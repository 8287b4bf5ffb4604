"""``/v1/embeddings``: pure translation both ways.

Fields are OpenAI's (https://platform.openai.com/docs/api-reference/embeddings); extensions of
ours are ``priority``, ``keep_alive`` and ``ttl``.
"""

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire import data as d
from daemon.wire.bounds import TokenCount
from http_bridge.decode import decode_body
from http_bridge.errors import refuse
from http_bridge.exchange import Call
from http_bridge.naming import Names, Need
from http_bridge.openai_common import priority_of, ttl_s_of
from http_bridge.openai_schema import NonEmpty, Strict, TokenId
from http_bridge.plan import Priority

INPUTS_MAX: Final = 2048

Tokens = Annotated[tuple[TokenId, ...], Meta(min_length=1)]


class EmbeddingsRequest(Strict, frozen=True, kw_only=True):
    """``POST /v1/embeddings``."""

    model: NonEmpty
    input: str | Annotated[tuple[str | TokenId | Tokens, ...], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: TokenCount | None = None
    user: str | None = None
    priority: Priority | None = None
    keep_alive: str | float | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


embeddings_decoder: Final = msgspec.json.Decoder(EmbeddingsRequest)


def read_embeddings(body: bytes, request_id: str) -> tuple[Call, bool]:
    """The call of a request body, and whether vectors go out as base64.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(embeddings_decoder, body)
    inputs = _inputs(request)
    call = Call(
        model=request.model,
        needs=(Need(capability="embeddings"),),
        names=Names(fields=_names(request)),
        make=lambda granted: d.Embed(
            lease=granted.lease, request=request_id, inputs=inputs, dimensions=request.dimensions
        ),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority_of(request.priority),
    )
    return call, request.encoding_format == "base64"


def _names(request: EmbeddingsRequest) -> dict[str, str]:
    several = not isinstance(request.input, str | int) and not isinstance(request.input[0], int)
    return {"inputs": "input"} if several else {"inputs": "input", "inputs[]": "input"}


def _inputs(request: EmbeddingsRequest) -> tuple[str | tuple[int, ...], ...]:
    given = request.input
    if isinstance(given, str):
        given = (given,)
    token_ids = [item for item in given if isinstance(item, int)]
    if token_ids:
        if len(token_ids) < len(given):
            raise refuse("input", "token ids beside texts; send one list of token ids a text")
        return (tuple(token_ids),)
    inputs = tuple(item for item in given if not isinstance(item, int))
    if "" in inputs:
        index = "" if isinstance(request.input, str) else f"[{inputs.index('')}]"
        raise refuse(f"input{index}", "an empty text has no embedding; leave it out")
    if len(inputs) > INPUTS_MAX:
        raise refuse("input", f"more than {INPUTS_MAX} inputs; send them in several requests")
    return inputs


def embeddings_body(
    model: str, vectors: Sequence[bytes], usage: d.Usage, *, as_base64: bool
) -> bytes:
    """OpenAI's list of embeddings.

    Args:
        vectors: 32-bit floats, little-endian, in the order of the inputs.
    """
    data: list[dict[str, Any]] = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector).decode() if as_base64 else floats(vector),
        }
        for index, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": counts})


def floats(vector: bytes) -> tuple[float, ...]:
    """The numbers of a vector of 32-bit floats, little-endian."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)
