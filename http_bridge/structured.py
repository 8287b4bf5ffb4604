"""Answers of a given form: JSON, a schema, a tool that has to be called. Pure.

What comes out are the fields of :class:`daemon.wire.data.Generate` that belong to the
capability "structured", and the requirement that the model has it.
"""

from typing import Any, Final

import msgspec

from daemon.wire import forms
from http_bridge.decode import check_portable
from http_bridge.errors import refuse
from http_bridge.naming import Need

STRUCTURED: Final = "structured"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a request, and what is asked of them.

    Attributes:
        shown: For the chat template, in OpenAI's form; none at all if none may be called.
        call_one_of: Names, one of which has to be called.
        calls_max: The most calls in one answer.
        strict: Names whose arguments have to follow their schema.
        needs: What the model must be able to do for that.
    """

    shown: tuple[dict[str, Any], ...] = ()
    call_one_of: tuple[str, ...] = ()
    calls_max: int | None = None
    strict: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A protocol's ``tool_choice``, in common words.

    Attributes:
        mode: "auto", "none", "required", or "named" with its ``name``.
        field: The parameter to name in a refusal.
        single: At most one call, and the parameter that says so.
    """

    mode: str = "auto"
    name: str = ""
    field: str = "tool_choice"
    single: str | None = None


def shown_tool(
    name: str, description: str | None, parameters: dict[str, Any] | None
) -> dict[str, Any]:
    """A function as chat templates know it: what every protocol says of it, in one order.

    Not ``strict``: that is kept by the worker, and would be noise to the model.
    """
    said = {"description": description, "parameters": parameters}
    given = {key: value for key, value in said.items() if value is not None}
    return {"type": "function", "function": {"name": name, **given}}


def choose_tools(
    shown: tuple[dict[str, Any], ...], strict: dict[str, str], choice: Choice
) -> Tools:
    """What a request's tools and its choice among them come to.

    Args:
        shown: The tools as the template sees them.
        strict: Names of strict tools, each with the parameter that says so.

    Raises:
        MlxdError: ``invalid_request``: two tools of one name, or a choice that is not there.
    """
    names = tuple(str(tool["function"]["name"]) for tool in shown)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise refuse(f"tools[{index}]", f"a second tool of the name {name!r}; rename it")
    if choice.mode == "none":
        return Tools()
    if choice.mode == "required" and not names:
        raise refuse(choice.field, "asks for a call, and there are no tools; send some")
    if choice.mode == "named" and choice.name not in names:
        raise refuse(choice.field, f"there is no tool {choice.name!r} among the tools")
    needs = [Need(capability=STRUCTURED, field=field) for field in strict.values()]
    if choice.mode in {"required", "named"}:
        needs.append(Need(capability=STRUCTURED, field=choice.field))
    single = choice.single if names else None
    if single is not None:
        needs.append(Need(capability=STRUCTURED, field=single))
    forced = {"required": names, "named": (choice.name,)}.get(choice.mode, ())
    return Tools(
        shown=shown,
        call_one_of=forced,
        calls_max=1 if single else None,
        strict=tuple(strict),
        needs=tuple(needs),
    )


def schema_constraint(schema: dict[str, Any], field: str) -> forms.JsonSchema:
    """A schema as the worker takes it; whether it can be followed, the worker says.

    Raises:
        MlxdError: ``invalid_request`` naming ``field`` if it is empty.
    """
    if not schema:
        raise refuse(field, "an empty schema accepts anything; ask for json_object instead")
    check_portable(schema, field)
    return forms.JsonSchema(schema=msgspec.json.encode(schema))
