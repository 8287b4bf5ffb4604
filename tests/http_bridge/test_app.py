"""Routes over real HTTP: models, health, refusals, and who may call."""

from collections.abc import AsyncIterator

import anyio
import openai
import pytest

from daemon.wire.errors import Code, Fault
from daemon.wire.settings import HttpSettings, hashed_key
from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


async def test_an_unknown_model_is_a_404(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        for stream in (False, True):
            with pytest.raises(openai.NotFoundError) as caught:
                await setup.sdk.chat.completions.create(
                    model="../m", messages=[{"role": "user", "content": "Hi"}], stream=stream
                )
            assert caught.value.code == "model_not_found"
            assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_picture_for_a_text_model_is_a_400(open_setup: OpenSetup) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    async with open_setup(FakeModel("m", says())) as setup:
        with pytest.raises(openai.BadRequestError, match="m cannot do vision"):
            await setup.sdk.chat.completions.create(
                model="m",
                messages=[
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
                ],
            )
    assert setup.fake.requests == []


async def test_a_bad_parameter_reaches_the_sdk_by_name(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        with pytest.raises(openai.BadRequestError) as caught:
            await setup.sdk.chat.completions.create(**BODY, temperature=3)  # type: ignore[call-overload]
        nan = await setup.http.post(
            CHAT, content=b'{"temperature": NaN}', headers={"content-type": "application/json"}
        )
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
    assert nan.status_code == 400
    assert "not valid JSON" in nan.json()["error"]["message"]
    assert setup.fake.ledger.entries == []


async def test_the_daemons_retry_after_is_passed_on(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.BUSY, message="loading", retry_after_ms=4200)
    async with open_setup(FakeModel("m", says(), fault=fault)) as setup:
        response = await setup.http.post(CHAT, json=BODY)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.headers["x-should-retry"] == "true"


async def test_a_large_body_is_a_413_that_says_the_bound(open_setup: OpenSetup) -> None:
    async with open_setup(
        FakeModel("m", says()), http=HttpSettings(port=0, body_bytes_max=1000)
    ) as setup:
        announced = await setup.http.post(CHAT, json={"x": "y" * 1000})

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        headers = {"content-type": "application/json"}
        chunked = await setup.http.post(CHAT, content=pieces(), headers=headers)
        fine = await setup.http.post(CHAT, json=BODY)
    for response in (announced, chunked):
        assert response.status_code == 413
        assert "1000 bytes" in response.json()["error"]["message"]
    assert fine.status_code == 200


async def test_unknown_urls_and_methods(open_setup: OpenSetup) -> None:
    async with open_setup() as setup:
        unknown = await setup.http.get("/v1/nothing")
        wrong = await setup.http.get(CHAT)
        posted = await setup.http.post("/healthz")
        nowhere = await setup.http.post("/v1/nothing", content=b"{}")
    assert (posted.status_code, nowhere.status_code) == (405, 404)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    assert wrong.json()["error"]["type"] == "invalid_request_error"


async def test_keys_hosts_origins_and_forms(open_setup: OpenSetup) -> None:
    http = HttpSettings(
        port=0, api_keys=(hashed_key("secret-key"),), allowed_origins=("https://a.example",)
    )
    async with open_setup(FakeModel("m", says("x")), http=http) as setup:
        key = {"authorization": "Bearer secret-key"}
        missing = await setup.http.get("/v1/models")
        health = await setup.http.get("/healthz")
        right = await setup.http.get("/v1/models", headers=key)
        other = await setup.http.get("/v1/models", headers={"x-api-key": "secret-key"})
        rebound = await setup.http.get("/v1/models", headers={**key, "host": "evil.example"})
        foreign = await setup.http.get("/v1/models", headers={**key, "origin": "https://b.example"})
        form = await setup.http.post(CHAT, content=b"{}", headers=key)
        page = {"origin": "https://a.example"}
        allowed = await setup.http.post(
            CHAT, json={**BODY, "stream": True}, headers={**key, **page}
        )
        asked = await setup.http.options(
            CHAT, headers={**page, "access-control-request-method": "POST"}
        )
    assert (missing.status_code, missing.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (right.status_code, other.status_code) == (200, 200)
    assert (rebound.status_code, foreign.status_code) == (403, 403)
    assert "access-control-allow-origin" not in right.headers
    assert form.status_code == 415
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.text.endswith("data: [DONE]\n\n")
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://a.example"


async def test_a_body_announced_too_large_is_refused_unread(open_setup: OpenSetup) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 64000001\r\n\r\n"
    )
    async with (
        open_setup() as setup,
        await anyio.connect_tcp("127.0.0.1", setup.http.base_url.port or 0) as stream,
    ):
        with anyio.fail_after(5):
            await stream.send(head)
            assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")
