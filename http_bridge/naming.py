"""What the fields of a worker's request are called by the client who filled them. Pure.

Engines and the daemon name the field at fault as the wire calls it. A client knows other
names, and they differ by protocol: ``constraint.schema`` is
``response_format.json_schema.schema`` in one and ``text.format.schema`` in another.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault

_INDEX: Final = re.compile(r"\[(\d+)\]")
_PICTURE: Final = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\]")
_CALL: Final = re.compile(r"messages\[(\d+)\]\.tool_calls\[(\d+)\]\.arguments")
_NEED: Final = re.compile(r"needs\[(\d+)\]")


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the model must be able to do.

    Attributes:
        capability: What the model must have.
        field: The parameter that asks for it; of pictures the first one is found out later.
    """

    capability: str
    field: str = "model"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where things stand in a client's body, in the order in which the worker gets them.

    Attributes:
        pictures: Every picture.
        calls: The arguments of every tool call that the model made before.
    """

    pictures: Sequence[str] = ()
    calls: Sequence[str] = ()


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """One request's names of the wire's fields.

    Attributes:
        fields: By the wire's name, with ``[]`` for an index; what is not here is called the
            same.
        places: Asked only when a picture or a call is at fault.
    """

    fields: Mapping[str, str] = {}
    places: Callable[[], Places] = Places


def capabilities_of(needs: Sequence[Need]) -> tuple[str, ...]:
    """What is asked of the daemon: each capability once, in the order in which to refuse."""
    return tuple(dict.fromkeys(need.capability for need in needs))


def in_clients_words(
    fault: Fault,
    names: Names,
    needs: Sequence[Need] = (),
    messages: Sequence[d.ChatMessage] = (),
) -> Fault:
    """A refusal that names the field as the client does, at the beginning of its message too."""
    if fault.code is not Code.INVALID_REQUEST or fault.field in {None, "model"}:
        return fault
    assert fault.field is not None
    field = _called(fault.field, names, needs, messages)
    message = fault.message
    if field != "model" and not message.startswith(f"{field}: "):
        message = f"{field}: {message.removeprefix(fault.field + ' ')}"
    return msgspec.structs.replace(fault, field=field, message=message)


def _called(
    field: str, names: Names, needs: Sequence[Need], messages: Sequence[d.ChatMessage]
) -> str:
    if found := _NEED.fullmatch(field):
        return _needed(int(found[1]), names, needs)
    if found := _PICTURE.fullmatch(field):
        return _nth(names.places().pictures, _pictures_before(messages, *_pair(found)), field)
    if found := _CALL.fullmatch(field):
        message, call = _pair(found)
        before = sum(len(one.tool_calls) for one in messages[:message])
        return _nth(names.places().calls, before + call, field)
    return _renamed(field, names.fields)


def _needed(index: int, names: Names, needs: Sequence[Need]) -> str:
    capability = capabilities_of(needs)[index]
    field = next(need.field for need in needs if need.capability == capability)
    return _nth(names.places().pictures, 0, field) if capability == "vision" else field


def _pair(found: re.Match[str]) -> tuple[int, int]:
    return int(found[1]), int(found[2])


def _pictures_before(messages: Sequence[d.ChatMessage], message: int, part: int) -> int:
    parts = [one.parts for one in messages[:message]]
    parts += [one.parts[:part] for one in messages[message : message + 1]]
    return sum(isinstance(one, d.ImagePart) for some in parts for one in some)


def _nth(places: Sequence[str], index: int, otherwise: str) -> str:
    return places[index] if index < len(places) else otherwise


def _renamed(field: str, fields: Mapping[str, str]) -> str:
    """The client's name of a field, or of the nearest one around it that has another."""
    indices = iter(_INDEX.findall(field))
    shape = _INDEX.sub("[]", field)
    known, rest = shape, ""
    while known and known not in fields:
        cut = max(known.rfind("."), known.rfind("["))
        known, rest = (known[:cut], known[cut:] + rest) if cut > 0 else ("", shape)
    return re.sub(r"\[\]", lambda _: f"[{next(indices)}]", fields.get(known, "") + rest)
