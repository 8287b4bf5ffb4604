"""Every endpoint that an official SDK has a method for, driven by that SDK, sync and async.

Sound has a file of its own, because its models are built for the full tier only.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import httpx2 as httpx
import msgspec
import openai
import pytest

from http_bridge.routes import ROUTES
from tests.e2e.service import EMBEDDER, Service
from tests.e2e.vision_models import BUNDLED

pytestmark = pytest.mark.e2e

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
SAID = "Hello! How can I help you today?"
"""What the bundled model always answers to that."""


class Clients(msgspec.Struct, frozen=True):
    """The two SDKs, both of one kind: their methods have the same names in the other."""

    openai: Any
    anthropic: Any


Call = Callable[[Clients], Any]
Check = Callable[[Any], object]


def text_of_chunks(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def deltas_of(events: list[Any]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


def text_deltas(events: list[Any]) -> str:
    deltas = [e.delta for e in events if e.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas)


CALLS: dict[str, tuple[str, Call, Check]] = {
    "models": (
        "GET /v1/models",
        lambda c: c.openai.models.list(),
        lambda page: BUNDLED in {model.id for model in page.data},
    ),
    "model": (
        "GET /v1/models/{id}",
        lambda c: c.openai.models.retrieve(BUNDLED),
        lambda model: (model.id, model.object) == (BUNDLED, "model"),
    ),
    "chat": (
        "POST /v1/chat/completions",
        lambda c: c.openai.chat.completions.create(model=BUNDLED, messages=HELLO),
        lambda reply: reply.choices[0].message.content == SAID,
    ),
    "chat, streamed": (
        "POST /v1/chat/completions",
        lambda c: c.openai.chat.completions.create(model=BUNDLED, messages=HELLO, stream=True),
        lambda chunks: text_of_chunks(chunks) == SAID,
    ),
    "completions": (
        "POST /v1/completions",
        lambda c: c.openai.completions.create(model=BUNDLED, prompt="red", max_tokens=4),
        lambda reply: reply.usage.completion_tokens in range(1, 5),
    ),
    "completions, streamed": (
        "POST /v1/completions",
        lambda c: c.openai.completions.create(
            model=BUNDLED, prompt=[5, 6, 7], max_tokens=4, stream=True
        ),
        lambda chunks: chunks[-1].choices[0].finish_reason in {"stop", "length"},
    ),
    "responses": (
        "POST /v1/responses",
        lambda c: c.openai.responses.create(model=BUNDLED, input="Hello!"),
        lambda reply: (reply.output_text, reply.status) == (SAID, "completed"),
    ),
    "responses, streamed": (
        "POST /v1/responses",
        lambda c: c.openai.responses.create(model=BUNDLED, input=HELLO, stream=True),
        lambda events: deltas_of(events) == SAID,
    ),
    "embeddings": (
        "POST /v1/embeddings",
        lambda c: c.openai.embeddings.create(model=EMBEDDER, input=["a cat", "a kitten"]),
        lambda reply: [len(item.embedding) for item in reply.data] == [384, 384],
    ),
    "messages": (
        "POST /v1/messages",
        lambda c: c.anthropic.messages.create(model=BUNDLED, messages=HELLO, max_tokens=60),
        lambda reply: reply.content[0].text == SAID,
    ),
    "messages, streamed": (
        "POST /v1/messages",
        lambda c: c.anthropic.messages.create(
            model=BUNDLED, messages=HELLO, max_tokens=60, stream=True
        ),
        lambda events: text_deltas(events) == SAID,
    ),
    "count_tokens": (
        "POST /v1/messages/count_tokens",
        lambda c: c.anthropic.messages.count_tokens(model=BUNDLED, messages=HELLO),
        lambda reply: reply.input_tokens > 5,
    ),
}

NO_SDK = {"GET /healthz", "GET /metrics", "GET /openapi.json"}
SOUND = {"POST /v1/audio/speech", "POST /v1/audio/transcriptions"}


def arguments(service: Service) -> tuple[dict[str, Any], dict[str, Any]]:
    common = {"api_key": "unused", "max_retries": 0, "timeout": 120}
    return {**common, "base_url": f"{service.url}/v1"}, {**common, "base_url": service.url}


@pytest.fixture(scope="module")
def loaded(service: Service) -> Iterator[None]:
    for name in (BUNDLED, EMBEDDER):
        service.mlxctl("load", name)
    yield
    for name in (BUNDLED, EMBEDDER):
        service.mlxctl("unload", name)


@pytest.fixture
def sync_clients(service: Service) -> Iterator[Clients]:
    one, other = arguments(service)
    with openai.OpenAI(**one) as first, anthropic.Anthropic(**other) as second:
        yield Clients(first, second)


@pytest.fixture
async def async_clients(service: Service) -> AsyncIterator[Clients]:
    one, other = arguments(service)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(openai.AsyncOpenAI(**one))
        second = await stack.enter_async_context(anthropic.AsyncAnthropic(**other))
        yield Clients(first, second)


def test_every_route_is_driven() -> None:
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    assert {route for route, _, _ in CALLS.values()} | NO_SDK | SOUND == routes


@pytest.mark.parametrize("name", CALLS)
def test_sync(sync_clients: Clients, loaded: None, name: str) -> None:
    _, call, check = CALLS[name]
    found = call(sync_clients)
    assert check(list(found) if name.endswith("streamed") else found), found


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_async(async_clients: Clients, loaded: None, name: str) -> None:
    _, call, check = CALLS[name]
    found = call(async_clients)
    if inspect.isawaitable(found):
        found = await found
    assert check([part async for part in found] if name.endswith("streamed") else found), found


def test_what_no_sdk_asks_for(service: Service, http: httpx.Client) -> None:
    assert http.get("/healthz").json()["status"] == "ok"
    assert "mlxd_up 1.0" in http.get("/metrics").text
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")
