"""Request bodies: JSON into Structs, and mistakes into 400s that name the field."""

import re
from typing import Any, Final, TypeVar

import msgspec

from daemon.wire.bounds import in_plain_words
from daemon.wire.errors import Code, MlxdError
from http_bridge.errors import refuse
from http_bridge.nulls import without_nulls

T = TypeVar("T")

_AT: Final = re.compile(r"^(?P<reason>.*?) - at (?:`key` in )?`\$\.?(?P<path>.*)`$", re.DOTALL)
_NAMED: Final = re.compile(r"(?P<what>unknown|missing required) field `(?P<field>[^`]*)`$")
_BOM: Final = b"\xef\xbb\xbf"
_HALF: Final = re.compile(rb"(?<!\\)(?:\\\\)*(\\u([dD][89a-fA-F][0-9a-fA-F]{2}))")
_MEMBERS_MAX: Final = 100_000
"""Of a body from which nulls are taken: some 0.4 s, in which no stream goes on."""
_JSON_WORDS: Final = (("`array`", "a list"), ("`object`", "an object"), ("`str`", "a string"))


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The Struct that a JSON body means; members that are null count as absent.

    Raises:
        MlxdError: ``invalid_request``; ``field`` is the path of the value at fault, such as
            ``messages[1].content[0].image_url.url``.
    """
    body = body.removeprefix(_BOM)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            # Rarely sent, so that bodies which decode at once pay nothing for it.
            kept = _without_nulls(body, decoder.type)
            if kept is None:
                raise
        return decoder.decode(kept)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = _half_pair(body) or f"{error}; send a JSON object"
        raise MlxdError(Code.INVALID_REQUEST, f"the body is not valid JSON: {reason}") from error
    except RecursionError as error:
        raise MlxdError(
            Code.INVALID_REQUEST, "the body is nested too deeply; send a flatter JSON object"
        ) from error


def _without_nulls(body: bytes, kind: Any) -> bytes | None:
    """The body without members that are null; None if it has none, or too many members."""
    if b"null" not in body or body.count(b",") > _MEMBERS_MAX:
        return None
    try:
        return msgspec.json.encode(without_nulls(msgspec.json.decode(body), kind))
    except (msgspec.ValidationError, OverflowError):  # numbers that Python's cannot hold
        return None


def convert_part(value: Any, kind: Any, path: str) -> Any:
    """What a part of a body, already decoded as free-form JSON, means.

    Args:
        kind: A type that msgspec knows.
        path: Where the part stands in the body.

    Raises:
        MlxdError: ``invalid_request``; ``field`` begins with ``path``.
    """
    try:
        return msgspec.convert(without_nulls(value, kind), kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), path) from error


def check_portable(value: Any, field: str) -> None:
    """Refuse free-form JSON that a worker's socket cannot carry.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: whole numbers of more than 64 bits.
    """
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, RecursionError) as error:
        raise refuse(field, "holds a number of more than 64 bits; send it as text") from error


def _half_pair(body: bytes) -> str | None:
    """What is wrong with a body that escapes half of a character, which no text can hold."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return None
    high: re.Match[bytes] | None = None
    for escape in _HALF.finditer(body):
        low = int(escape[2], 16) >= 0xDC00
        pairs = high is not None and low and escape.start(1) == high.end()
        if high is not None and not pairs:
            return _half(high)
        if low and not pairs:
            return _half(escape)
        high = None if low else escape
    return None if high is None else _half(high)


def _half(escape: re.Match[bytes]) -> str:
    return (
        f"{escape[1].decode()} at byte {escape.start(1)} is half of a surrogate pair, and no "
        "character; send whole characters"
    )


def _explained(message: str, prefix: str = "") -> MlxdError:
    """An error for msgspec's "Expected … - at `$.messages[0].role`"."""
    at = _AT.match(message)
    reason, path = (at["reason"], at["path"]) if at else (message, "")
    field = ".".join(filter(None, (prefix, path.replace("[...]", ""))))
    if named := _NAMED.search(reason):
        field = f"{field}.{named['field']}" if field else named["field"]
        if named["what"] == "unknown":
            return refuse(field, "unknown or unsupported; it would have no effect, so leave it out")
        return refuse(field, "required, and missing")
    for ours, theirs in _JSON_WORDS:
        reason = reason.replace(ours, theirs)
    reason = in_plain_words(reason)
    if not field:
        return MlxdError(Code.INVALID_REQUEST, f"the body: {reason}")
    return refuse(field, reason)
