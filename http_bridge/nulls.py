"""``null`` means absent: members whose value is null are left out of a body. Pure."""

from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

_KINDS_MAX: Final = 64
"""Bodies and items that are decoded; there are a dozen."""


def without_nulls(value: Any, kind: Any) -> Any:
    """The value without members that are null, where ``kind`` says what the members are.

    Members that have to be there stay, so that their refusal says what was given. Free-form
    objects (a schema, the arguments of a tool, metadata) stay as they are.

    Args:
        value: Decoded JSON.
        kind: The type that it is decoded to.
    """
    return _cleaned(value, _described(kind))


@lru_cache(maxsize=_KINDS_MAX)
def _described(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _cleaned(value: Any, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.Metadata):
        return _cleaned(value, kind.type)
    if isinstance(kind, inspect.UnionType):
        meant = _meant(value, kind)
        return value if meant is None else _cleaned(value, meant)
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        return _members(value, kind)
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        if not _has_members(kind.item_type):
            return value
        return [_cleaned(one, kind.item_type) for one in value]
    return value


def _members(value: dict[str, Any], kind: inspect.StructType) -> dict[str, Any]:
    fields = {field.encode_name: field for field in kind.fields}
    kept: dict[str, Any] = {}
    for name, member in value.items():
        field = fields.get(name)
        if member is not None:
            kept[name] = member if field is None else _cleaned(member, field.type)
        elif name == kind.tag_field or (field is not None and field.required):
            kept[name] = None
    return kept


def _meant(value: Any, union: inspect.UnionType) -> inspect.Type | None:
    """Which type of a union the value is given as; None if nothing in it could be left out."""
    if isinstance(value, list):
        return next((one for one in union.types if _is_list(one)), None)
    if not isinstance(value, dict):
        return None
    shapes = [one for one in union.types if isinstance(one, inspect.StructType)]
    tagged = [one for one in shapes if one.tag_field and value.get(one.tag_field) == one.tag]
    untagged = [one for one in shapes if one.tag_field is None]
    return next(iter(tagged or untagged), None)


def _has_members(kind: inspect.Type) -> bool:
    """Whether a value of this type may hold members that are known."""
    if isinstance(kind, inspect.Metadata):
        return _has_members(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(map(_has_members, kind.types))
    if isinstance(kind, inspect.VarTupleType):
        return _has_members(kind.item_type)
    return isinstance(kind, inspect.StructType)


def _is_list(kind: inspect.Type) -> bool:
    inner = kind.type if isinstance(kind, inspect.Metadata) else kind
    return isinstance(inner, inspect.VarTupleType)
