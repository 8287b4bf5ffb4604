"""``/openapi.json``: OpenAPI 3.1, from the table of routes and the Structs of their bodies."""

from typing import Any, Final

import msgspec

from http_bridge.openai_responses_schema import Item, ResponsesRequest
from http_bridge.pool_routes import POOL_ROUTES
from http_bridge.routes import ROUTES, Route
from http_bridge.sse import PROGRESS_HEADER
from http_bridge.transcription import TranscriptionForm

_REF: Final = "#/components/schemas/{name}"


class OpenAIError(msgspec.Struct):
    """What went wrong: ``code`` is stable, ``param`` the path of the field at fault."""

    message: str
    type: str
    param: str | None
    code: str
    hint: str | msgspec.UnsetType = msgspec.UNSET


class OpenAIErrorBody(msgspec.Struct):
    error: OpenAIError


class AnthropicError(msgspec.Struct):
    type: str
    message: str


class AnthropicErrorBody(msgspec.Struct, tag="error", tag_field="type"):
    error: AnthropicError


def document(version: str) -> dict[str, Any]:
    """The whole description.

    Args:
        version: Of the release.
    """
    routes = (*ROUTES, *POOL_ROUTES)
    bodies = list(dict.fromkeys(route.body for route in routes if route.body is not None))
    shapes = [*bodies, OpenAIErrorBody, AnthropicErrorBody, Item]
    refs, components = msgspec.json.schema_components(shapes, ref_template=_REF)
    named = dict(zip([*bodies, OpenAIErrorBody, AnthropicErrorBody], refs, strict=False))
    _refine(components, refs[-1])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route, named)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlx-bridge",
            "version": version,
            "description": "MLX models over HTTP. Every field that is accepted is honoured; "
            "every other is refused with a 400 that names it.",
        },
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _refine(components: dict[str, Any], item: dict[str, Any]) -> None:
    """Say what the Structs cannot: that items have a shape, and that a file is a file."""
    responses = components[ResponsesRequest.__name__]["properties"]
    for option in responses["input"]["anyOf"]:
        if option.get("type") == "array":
            option["items"] = item
    form = components[TranscriptionForm.__name__]["properties"]
    form["file"] = {"type": "string", "format": "binary"}


def _operation(route: Route, refs: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    anthropic = route.path.startswith("/v1/messages")
    error = refs[AnthropicErrorBody if anthropic else OpenAIErrorBody]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            "200": {
                "description": "The answer",
                "content": {kind: {"schema": _answer(kind)} for kind in route.answers},
            },
            "default": {
                "description": "A failure",
                "content": {"application/json": {"schema": error}},
            },
        },
    }
    if route.body is not None:
        kind = "multipart/form-data" if route.form else "application/json"
        content = {kind: {"schema": refs[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 0}}
        for name in route.query
    ]
    if route.body is not None and "text/event-stream" in route.answers:
        parameters.append(_PROGRESS)
    if "{id}" in route.path:
        schema = {"type": "string"}
        parameters.append({"name": "id", "in": "path", "required": True, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    return operation


_PROGRESS: Final[dict[str, Any]] = {
    "name": PROGRESS_HEADER,
    "in": "header",
    "description": "With 1, a stream begins at once with events of the type mlxd.progress",
    "schema": {"enum": ["1"]},
}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One server-sent event",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}


def _answer(kind: str) -> dict[str, Any]:
    if kind == "text/event-stream":
        return _EVENT
    return {"type": "object"} if kind == "application/json" else {"type": "string"}
