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
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
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
            kept = without_nulls(msgspec.json.decode(body), decoder.type)
            return msgspec.convert(kept, decoder.type, str_keys=True)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = _half_pair(body) or f"{error}; send a JSON object"
        raise MlxdError(Code.INVALID_REQUEST, f"the body is not valid JSON: {reason}") from error
    except RecursionError as error:
        raise MlxdError(
            Code.INVALID_REQUEST, "the body is nested too deeply; send a flatter JSON object"
        ) from error


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
    high: re.Match[bytes] | None = None
    for escape in _ESCAPE.finditer(body):
        unit = int(escape[1], 16) if escape[1] else 0
        pairs = high is not None and escape.start() == high.end() and 0xDC00 <= unit <= 0xDFFF
        if high is not None and not pairs:
            return _half(high)
        if 0xDC00 <= unit <= 0xDFFF and not pairs:
            return _half(escape)
        high = escape if 0xD800 <= unit <= 0xDBFF else None
    return None if high is None else _half(high)


def _half(escape: re.Match[bytes]) -> str:
    return (
        f"{escape[0].decode()} at byte {escape.start()} is half of a surrogate pair, and no "
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
