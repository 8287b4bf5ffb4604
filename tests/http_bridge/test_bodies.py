"""Bodies and forms within their bound, over real HTTP."""

import os
from collections.abc import AsyncIterator

import pytest

from daemon.wire import data as d
from daemon.wire.settings import HttpSettings
from tests.fakes.daemon import FakeModel, answers, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

URL = "/v1/audio/transcriptions"
HEADERS = {"content-type": "multipart/form-data; boundary=x"}
END = d.Done(finish_reason="stop", usage=d.Usage(prompt_tokens=0, completion_tokens=0))


def part(name: str, value: bytes) -> bytes:
    return (
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n' % name.encode()
        + value
        + b"\r\n"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x--\r\n",
        b"no form at all",
        b"--x\r\n\r\nno name\r\n--x--\r\n",
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--\r\n",
        part("model", b"m")[:-9],
        part("model", b"m").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: rot13\r\n\r\n")
        + b"--x--\r\n",
        b"".join(part(f"f{index}", b"") for index in range(65)) + b"--x--\r\n",
        os.urandom(300),
    ],
)
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
async def test_what_is_no_form_is_a_400(open_setup: OpenSetup, body: bytes) -> None:
    async with open_setup() as setup:
        response = await setup.http.post(URL, content=body, headers=HEADERS)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
async def test_a_form_needs_its_boundary(open_setup: OpenSetup, kind: str) -> None:
    async with open_setup() as setup:
        response = await setup.http.post(URL, content=b"--x--", headers={"content-type": kind})
    assert response.status_code == 400


async def test_a_large_form_is_a_413_that_says_the_bound(open_setup: OpenSetup) -> None:
    model = FakeModel(
        "t",
        says(),
        capabilities=("transcription",),
        calls=answers(d.Accepted(prompt_tokens=0), END),
    )
    http = HttpSettings(port=0, body_bytes_max=1000)
    async with open_setup(model, http=http) as setup:
        small = await setup.http.post(URL, data={"model": "t"}, files={"file": b"a" * 500})
        announced = await setup.http.post(URL, data={"model": "t"}, files={"file": b"a" * 1000})

        async def pieces() -> AsyncIterator[bytes]:
            yield part("model", b"t") + part("file", b"a" * 600) + part("prompt", b"b" * 600)
            yield b"--x--\r\n"

        chunked = await setup.http.post(URL, content=pieces(), headers=HEADERS)
    assert small.status_code == 200, small.text
    for response in (announced, chunked):
        assert response.status_code == 413
        assert "1000 bytes" in response.json()["error"]["message"]


async def test_forms_only_where_a_file_is_sent(open_setup: OpenSetup) -> None:
    async with open_setup() as setup:
        form = await setup.http.post("/v1/chat/completions", data={"model": "t"}, files={"f": b"a"})
        json_body = await setup.http.post(URL, json={"model": "t"})
        page = await setup.http.post(
            URL,
            data={"model": "t"},
            files={"file": b"a"},
            headers={"origin": "https://evil.example"},
        )
    assert (form.status_code, json_body.status_code, page.status_code) == (415, 415, 403)
