"""Writes docs/api-fields.md from the Structs of request bodies and the table of meanings.

Run ``python -m tests.http_bridge.generate_api_fields_doc`` after changing a field; a test
compares the page with what this gives.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from http_bridge.routes import ROUTES, Route
from tests.http_bridge.api_meanings import COMMON, KINDS_REFUSED, MEANINGS, NESTED_REFUSED, REFUSED

TARGET: Final = Path(__file__).parents[2] / "docs" / "api-fields.md"

INTRODUCTION: Final = """\
# Fields of the APIs

Every field that is accepted is honoured as this page says; every other one is a 400 that names
it. `null` means absent, also of fields that are refused, so that what an SDK's `model_dump()` gives
can be sent back; in free-form objects (schemas, arguments of tools, `chat_template_kwargs`) it
stays. Fields that need a capability are a 400, too, where the model lacks it;
`GET /v1/models` lists what each model can do.

This page is generated: `python -m tests.http_bridge.generate_api_fields_doc`.
"""

PLACES: Final = {
    "TextPart": "chat: a part of text",
    "ImagePart": "chat: a picture",
    "InputText": "responses: `input_text`",
    "InputImage": "responses: `input_image`",
    "MessageItem": "responses: a message",
    "FunctionCallItem": "responses: `function_call`",
    "FunctionTool": "responses: a tool",
    "ImageBlock": "messages: `image`",
    "ToolUseBlock": "messages: `tool_use`",
    "ToolResultBlock": "messages: `tool_result`",
    "CustomTool": "messages: a tool",
    "ThinkingOn": "messages: `thinking` enabled",
    "ThinkingAdaptive": "messages: `thinking` adaptive",
}

WORDS: Final[dict[type[inspect.Type], str]] = {
    inspect.BoolType: "`true`, `false`",
    inspect.VarTupleType: "list",
    inspect.TupleType: "list",
    inspect.StructType: "object",
    inspect.DictType: "object",
    inspect.BytesType: "file",
    inspect.NoneType: "`null`",
    inspect.StrType: "text",
}


def values_of(kind: inspect.Type) -> str:
    """A type in a reader's words."""
    match kind:
        case inspect.UnionType():
            words = [values_of(inner) for inner in kind.types if not _is_none(inner)]
            return ", or ".join(dict.fromkeys(words))
        case inspect.Metadata():
            return values_of(kind.type)
        case inspect.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case inspect.IntType() | inspect.FloatType():
            return _number(kind)
        case _:
            return WORDS[type(kind)]


def _is_none(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.NoneType)


def _number(kind: inspect.IntType | inspect.FloatType) -> str:
    low = _bound(kind.ge, "{}") or _bound(kind.gt, "above {}")
    high = _bound(kind.le, "{}") or _bound(kind.lt, "below {}")
    if isinstance(kind, inspect.IntType) and kind.le is not None and kind.le >= (1 << 31) - 1:
        high = ""
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else "number"


def _bound(value: Any, form: str) -> str:
    return "" if value is None else form.format(f"{value:g}")


def section(route: Route) -> str:
    """One endpoint."""
    assert route.body is not None
    name = route.body.__name__
    described = inspect.type_info(route.body)
    assert isinstance(described, inspect.StructType)
    meanings = {**COMMON, **MEANINGS[name]}
    rows = [
        f"| `{field.encode_name}`{' (required)' if field.required else ''} "
        f"| {values_of(field.type)} | {meanings[field.encode_name]} |"
        for field in described.fields
    ]
    lines = [
        f"## `{route.method} {route.path}`",
        "",
        f"{route.summary}.",
        "",
        "| field | value | honoured as |",
        "|---|---|---|",
        *rows,
    ]
    if REFUSED[name]:
        lines += ["", "| refused | why |", "|---|---|"]
        lines += [f"| `{field}` | {why} |" for field, why in sorted(REFUSED[name].items())]
    return "\n".join([*lines, ""])


def render() -> str:
    """The whole page."""
    sections = [section(route) for route in ROUTES if route.body is not None]
    return "\n".join([INTRODUCTION, *sections, nested()])


def nested() -> str:
    """What the shapes inside of requests do not have."""
    refused = {PLACES[shape]: fields for shape, fields in NESTED_REFUSED.items()}
    kinds = {
        place: {f'"type": "{kind}"': why for kind, why in whys.items()}
        for place, whys in KINDS_REFUSED.items()
    }
    rows = [
        f"| {place} | `{what}` | {why} |"
        for place, whys in (*refused.items(), *kinds.items())
        for what, why in sorted(whys.items())
    ]
    head = ["## Inside of fields", "", "| in | refused | why |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def fields_of(body: type[msgspec.Struct]) -> set[str]:
    """The names of a body's fields."""
    return {field.encode_name for field in msgspec.structs.fields(body)}


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
