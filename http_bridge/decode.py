"""Request bodies: JSON into Structs, and mistakes into 400s that name the field."""

import re
from typing import Any, Final, TypeVar

import msgspec

from daemon.wire.bounds import in_plain_words
from daemon.wire.errors import Code, MlxdError
from http_bridge.errors import refuse

T = TypeVar("T")

_AT: Final = re.compile(r"^(?P<reason>.*?) - at (?:`key` in )?`\$\.?(?P<path>.*)`$", re.DOTALL)
_NAMED: Final = re.compile(r"(?P<what>unknown|missing required) field `(?P<field>[^`]*)`$")
_JSON_WORDS: Final = (("`array`", "a list"), ("`object`", "an object"), ("`str`", "a string"))


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The Struct that a JSON body means.

    Raises:
        MlxdError: ``invalid_request``; ``field`` is the path of the value at fault, such as
            ``messages[1].content[0].image_url.url``.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MlxdError(
            Code.INVALID_REQUEST, f"the body is not valid JSON: {error}; send a JSON object"
        ) from error
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
        return msgspec.convert(value, kind)
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
