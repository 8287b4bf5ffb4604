"""/openapi.json: whole, consistent in itself, and true to the routes and the Structs."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from http_bridge.openai_schema import ChatRequest
from http_bridge.openapi import document
from http_bridge.pool_routes import POOL_ROUTES
from http_bridge.routes import ROUTES
from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup

DOCUMENT = document("1.2.3")
TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}


def nodes(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_it_has_what_openapi_demands() -> None:
    """https://spec.openapis.org/oas/v3.1.0"""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    operations = [op for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES) + len(
        POOL_ROUTES
    )
    for path, item in DOCUMENT["paths"].items():
        assert path.startswith("/")
        for operation in item.values():
            named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert operation["responses"]["200"]["description"]
    for name in DOCUMENT["components"]["schemas"]:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {name for option in DOCUMENT["security"] for name in option} == set(schemes)


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    refs = [node["$ref"] for node in nodes(DOCUMENT) if isinstance(node, dict) and "$ref" in node]
    assert refs
    assert {ref.removeprefix("#/components/schemas/") for ref in refs} - set(schemas) == set()


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        for node in nodes(schema):
            if isinstance(node, dict) and isinstance(node.get("type"), str):
                assert node["type"] in TYPES, node


def test_every_field_of_a_body_is_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for route in ROUTES:
        if route.body is None:
            continue
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        ((kind, content),) = operation["requestBody"]["content"].items()
        assert kind == ("multipart/form-data" if route.form else "application/json")
        shape = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        fields = {field.encode_name for field in msgspec.structs.fields(route.body)}
        assert set(shape["properties"]) == fields
        assert shape["additionalProperties"] is False
    chat = schemas[ChatRequest.__name__]
    assert chat["required"] == ["model", "messages"]


def test_items_and_files_have_a_shape() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    (items,) = [
        option["items"]
        for option in schemas["ResponsesRequest"]["properties"]["input"]["anyOf"]
        if option.get("type") == "array"
    ]
    assert len(items["anyOf"]) == 4
    file = schemas["TranscriptionForm"]["properties"]["file"]
    assert file == {"type": "string", "format": "binary"}


@pytest.mark.anyio
async def test_every_route_is_served(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        served = (await setup.http.get("/openapi.json")).json()
        for route in ROUTES:
            path = route.path.replace("{id}", "m")
            if route.method == "GET":
                assert (await setup.http.get(path)).status_code == 200, route
            else:
                assert (await setup.http.get(path)).status_code == 405, route
                assert (await setup.http.post(path, json={})).status_code in {400, 415}, route
    assert served["paths"] == DOCUMENT["paths"]
