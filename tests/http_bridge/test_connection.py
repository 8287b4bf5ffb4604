"""What HTTP cannot read is a refusal that both SDKs understand, and never a traceback."""

import gzip
import json
import logging
import zlib
from typing import Any

import anyio
import pytest

from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup, Setup

pytestmark = pytest.mark.anyio

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
FORM = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n"
)


async def begun(setup: Setup) -> None:
    """Return when a request that was sent before is being handled: a later one has been."""
    assert (await setup.http.get("/healthz")).status_code == 200


async def answer(setup: Setup, *pieces: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of what the bridge says; it closes the connection."""
    port = int(setup.url.rpartition(":")[2])
    with anyio.fail_after(10):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for piece in pieces:
                await stream.send(piece)
                await begun(setup)
            said = b""
            async for received in stream:
                said += received
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-type"].startswith("application/json"), said
    return int(first.split()[1]), json.loads(body), headers


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        CHAT + b"Host: b\r\n\r\n",
        CHAT + JSON + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        CHAT + JSON + CHUNKED + b"zz\r\nabc\r\n",
    ],
)
async def test_what_is_not_http(
    open_setup: OpenSetup, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_setup() as setup:
        status, body, _ = await answer(setup, request_)
    assert status == 400
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["error"]["code"] == "bad_request"
    assert "not HTTP that can be read" in body["error"]["message"]
    assert "aaaa" not in body["error"]["message"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("head", [CHAT + JSON, FORM])
@pytest.mark.parametrize("pieces", [[b"zz\r\n"], [b"3\r\nabc\r\n", b"zz\r\n"]])
async def test_a_chunk_that_is_broken_after_the_headers(
    open_setup: OpenSetup, head: bytes, pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_setup() as setup:
        status, body, headers = await answer(setup, head + CHUNKED, *pieces)
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert body["error"]["message"] == (
        "the body cannot be read (Invalid character in chunk size); send it again"
    )
    assert headers["connection"] == "close"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_what_its_encoding_says(
    open_setup: OpenSetup, encoding: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    async with open_setup() as setup:
        response = await setup.http.post(path, content=b"\xff" * 40, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert f"Can not decode content-encoding: {encoding}" in error["message"]
    assert ("type" in response.json()) == (path == "/v1/messages")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_deflated_body_that_is_cut_short(open_setup: OpenSetup) -> None:
    headers = {"content-type": "application/json", "content-encoding": "deflate"}
    async with open_setup() as setup:
        cut = await setup.http.post(
            "/v1/chat/completions", content=zlib.compress(BODY)[:-9], headers=headers
        )
    assert cut.status_code == 400


@pytest.mark.parametrize("encoding", ["br", "zstd", "rot13", "gzip, br"])
async def test_an_encoding_that_is_not_undone_here(open_setup: OpenSetup, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    async with open_setup() as setup:
        response = await setup.http.post("/v1/chat/completions", content=BODY, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (415, "unsupported_media_type")
    assert error["message"].endswith("send the body plain, or as gzip or deflate")


async def test_a_connection_that_is_said_to_close_does(open_setup: OpenSetup) -> None:
    encoded = b"Content-Encoding: rot13\r\nContent-Length: 1\r\n\r\nx"
    async with open_setup() as setup:
        status, _, headers = await answer(setup, CHAT + JSON + encoded)
    assert (status, headers["connection"]) == (415, "close")


async def test_encoded_bodies_are_read(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says("x"))) as setup:
        for encoding, body in (("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY))):
            headers = {"content-type": "application/json", "content-encoding": encoding}
            url = "/v1/chat/completions"
            assert (await setup.http.post(url, content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize("head", [CHAT + JSON, FORM])
async def test_a_body_that_never_comes(open_setup: OpenSetup, head: bytes) -> None:
    async with open_setup(body_stall_s=0.05) as setup:
        port = int(setup.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head + b"Content-Length: 30\r\n\r\n{")
            with anyio.fail_after(5):
                said = await stream.receive()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in said
    assert b"nothing of the body came for 0.05 s" in said
