"""What a cold model cannot do is refused from its files: the daemon loads nothing for it."""

from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e.service import EMBEDDER, Service
from tests.e2e.vision_models import BUNDLED

TURN = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHAT = "/v1/chat/completions"

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    (EMBEDDER, CHAT, {"messages": [TURN]}, "model"),
    (EMBEDDER, "/v1/responses", {"input": "Hello"}, "model"),
    (EMBEDDER, "/v1/completions", {"prompt": "Hello"}, "model"),
    (EMBEDDER, "/v1/audio/speech", {"input": "Hello", "voice": "v"}, "model"),
    (BUNDLED, "/v1/embeddings", {"input": "Hello"}, "model"),
    (BUNDLED, "/v1/audio/speech", {"input": "Hello", "voice": "v"}, "model"),
    (BUNDLED, CHAT, {"messages": [TURN], "tools": [TOOL]}, "tools"),
    (BUNDLED, CHAT, {"messages": [TURN], "reasoning_effort": "high"}, "reasoning_effort"),
]


def loads(service: Service) -> int:
    return sum(event["type"] == "load.started" for event in service.events())


@pytest.mark.e2e
@pytest.mark.parametrize(("model", "path", "fields", "param"), REFUSED)
def test_nothing_is_loaded_to_refuse(
    service: Service, http: httpx.Client, model: str, path: str, fields: dict[str, Any], param: str
) -> None:
    before = loads(service)
    response = http.post(path, json={"model": model, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert loads(service) == before


@pytest.mark.e2e
def test_nothing_is_loaded_to_refuse_a_picture(
    service: Service, http: httpx.Client, text_model: str, picture: Callable[[str], str]
) -> None:
    before = loads(service)
    parts = [{"type": "image_url", "image_url": {"url": picture("red_square.png")}}]
    messages = [{"role": "user", "content": parts}]
    response = http.post(CHAT, json={"model": text_model, "messages": messages})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "messages[0].content[0].image_url.url"
    assert "cannot see pictures" in error["message"]
    counted = http.post("/v1/messages/count_tokens", json={"model": EMBEDDER, "messages": [TURN]})
    assert (counted.status_code, counted.json()["error"]["type"]) == (400, "invalid_request_error")
    assert loads(service) == before
