"""A stream that fails after it has begun ends with the protocol's own error, never in silence."""

import json
from typing import Any

import httpx2
import pytest

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from tests.fakes.daemon import CallScript, FakeModel, Line, Script
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

TURN = {"role": "user", "content": "x"}
FAULT = Fault(code=Code.WORKER_FAILED, message="the GPU is gone; ask again", field=None)
DIED = "worker process ended"

STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [TURN], "stream": True},
    "/v1/completions": {"prompt": "x", "stream": True},
    "/v1/responses": {"input": "x", "stream": True},
    "/v1/messages": {"messages": [TURN], "max_tokens": 9, "stream": True},
    "/v1/audio/speech": {"input": "x", "voice": "v", "stream_format": "sse"},
    "/v1/audio/transcriptions": {"stream": "true"},
}


def speaks(*end: d.Fail) -> Script:
    """A worker that says a little, then fails, or ends with its process."""

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="a", tokens=1), *end)

    return script


def works(*end: d.Fail) -> CallScript:
    async def script(line: Line, request: d.WorkRequest) -> None:
        heard = d.Transcript(segments=(d.Segment(text="a", start_s=0.0, end_s=1.0),))
        some = d.Audio(data=b"ab") if isinstance(request, d.Speak) else heard
        await line.send(d.Accepted(prompt_tokens=1), some, *end)

    return script


def model(*end: d.Fail) -> FakeModel:
    able = ("text", "chat", "speech", "transcription")
    return FakeModel("m", speaks(*end), capabilities=able, calls=works(*end))


async def streamed(http: httpx2.AsyncClient, path: str) -> list[str]:
    """The events of a stream, each without its end."""
    body = {"model": "m", **STREAMS[path]}
    if path.endswith("transcriptions"):
        response = await http.post(path, data=body, files={"file": b"x"})
    else:
        response = await http.post(path, json=body)
    assert response.status_code == 200
    return [event for event in response.text.split("\n\n") if event]


def error_of(path: str, event: str) -> str:
    """The message of a protocol's closing error."""
    *named, data = event.split("\n")
    shown = json.loads(data.removeprefix("data: "))
    match path:
        case "/v1/messages":
            assert named == ["event: error"]
            assert (shown["type"], shown["error"]["type"]) == ("error", "api_error")
            return str(shown["error"]["message"])
        case "/v1/responses":
            assert named == ["event: response.failed"]
            assert shown["type"] == "response.failed"
            assert shown["response"]["status"] == "failed"
            # Its codes are a closed set of OpenAI's, so that ours stands in the message.
            return str(shown["response"]["error"]["message"]).removesuffix(" (worker_failed)")
        case _:
            assert named == []
            assert shown["error"]["code"] == "worker_failed"
            return str(shown["error"]["message"])


@pytest.mark.parametrize("path", STREAMS)
async def test_a_failure_is_the_last_event(open_setup: OpenSetup, path: str) -> None:
    async with open_setup(model(d.Fail(fault=FAULT))) as setup:
        events = await streamed(setup.http, path)
        await setup.fake.ledger.wait_for("release lease-1")
    assert len(events) > 1
    assert error_of(path, events[-1]) == "the GPU is gone; ask again"


@pytest.mark.parametrize("path", STREAMS)
async def test_a_worker_that_dies_is_the_last_event(open_setup: OpenSetup, path: str) -> None:
    async with open_setup(model()) as setup:
        events = await streamed(setup.http, path)
    assert DIED in error_of(path, events[-1])


@pytest.mark.parametrize("path", STREAMS)
async def test_nothing_says_that_a_broken_stream_is_whole(open_setup: OpenSetup, path: str) -> None:
    async with open_setup(model(d.Fail(fault=FAULT))) as setup:
        text = "".join(await streamed(setup.http, path))
    for end in (
        "[DONE]",
        "message_stop",
        "response.completed",
        "audio.done",
        "transcript.text.done",
    ):
        assert end not in text


async def test_sound_itself_is_cut(open_setup: OpenSetup) -> None:
    async with open_setup(model(d.Fail(fault=FAULT))) as setup:
        with pytest.raises(httpx2.RemoteProtocolError):
            await setup.http.post(
                "/v1/audio/speech", json={"model": "m", "input": "x", "voice": "v"}
            )
