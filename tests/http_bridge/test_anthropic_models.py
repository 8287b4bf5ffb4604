"""Models in Anthropic's form, a page at a time."""

import pytest
from msgspec.structs import replace

from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError
from http_bridge.anthropic_models import model_info, model_page
from tests.http_bridge.test_views import MODEL

KNOWN = c.ModelsView(
    id=1, models=tuple(replace(MODEL, name=name) for name in "abcde")
)  # fmt: skip


def test_one_model() -> None:
    assert model_info(MODEL) == {
        "type": "model",
        "id": "org/m",
        "display_name": "org/m",
        "created_at": "2026-09-21T14:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 512,
    }
    assert model_info(replace(MODEL, problem="p"))["problem"] == "p"


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "d"}, "e", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"before_id": "c"}, "ab", False),
        ({"limit": "1", "after_id": "a", "before_id": "d"}, "b", True),
        ({"after_id": "d", "before_id": "a"}, "", False),
    ],
)
def test_pages(query: dict[str, str], ids: str, more: bool) -> None:
    page = model_page(KNOWN, query)
    assert [model["id"] for model in page["data"]] == list(ids)
    assert page["has_more"] == more
    assert page["first_id"] == (ids[0] if ids else None)
    assert page["last_id"] == (ids[-1] if ids else None)


def test_only_what_can_serve_is_listed() -> None:
    known = c.ModelsView(id=1, models=(MODEL, replace(MODEL, name="b", problem="p")))
    assert [model["id"] for model in model_page(known, {})["data"]] == ["org/m"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("limit", "0"), ("limit", "1001"), ("limit", "x"), ("limit", "-1"), ("limit", "\u0663"),
     ("after_id", "z"), ("before_id", "")],
)  # fmt: skip
def test_what_is_refused(field: str, value: str) -> None:
    with pytest.raises(MlxdError) as caught:
        model_page(KNOWN, {field: value})
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)
