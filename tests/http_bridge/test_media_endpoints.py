"""Embeddings, speech and transcription over real HTTP, asked for by the official client."""

import base64
import json
import struct
from typing import Any

import anyio
import httpx2
import openai
import pytest

from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from tests.fakes.daemon import CallScript, FakeModel, Line, answers, says
from tests.http_bridge.conftest import OpenSetup

pytestmark = pytest.mark.anyio

USAGE = d.Usage(prompt_tokens=4, completion_tokens=6)
END = d.Done(finish_reason="stop", usage=USAGE)
SPEECH = {"model": "s", "input": "Hello.", "voice": "ann", "response_format": "wav"}


def model(name: str, kind: str, script: CallScript) -> FakeModel:
    return FakeModel(name, says(), capabilities=(kind,), calls=script)


def vector(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


# --- embeddings ---------------------------------------------------------------------


async def test_embeddings(open_setup: OpenSetup) -> None:
    frames = (
        d.Accepted(prompt_tokens=4),
        d.Embeddings(vectors=(vector(0.5, -1.0),)),
        d.Embeddings(vectors=(vector(0.25, 2.0), vector(1.0, 0.0))),
        END,
    )
    async with open_setup(model("e", "embeddings", answers(*frames))) as setup:
        floats = await setup.sdk.embeddings.create(
            model="e", input=["a", "b", "c"], encoding_format="float"
        )
        by_default = await setup.sdk.embeddings.create(model="e", input=[1, 2], dimensions=2)
        await setup.fake.ledger.wait_for("release lease-2")
    expected = [[0.5, -1.0], [0.25, 2.0], [1.0, 0.0]]
    assert [item.embedding for item in floats.data] == expected
    assert [item.embedding for item in by_default.data] == expected
    assert [item.index for item in floats.data] == [0, 1, 2]
    assert (floats.model, floats.usage.prompt_tokens, floats.usage.total_tokens) == ("e", 4, 4)
    first, second = setup.fake.calls
    assert isinstance(first, d.Embed)
    assert isinstance(second, d.Embed)
    assert first.inputs == ("a", "b", "c")
    assert (second.inputs, second.dimensions) == (((1, 2),), 2)


async def test_a_text_model_embeds_nothing(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        with pytest.raises(openai.BadRequestError, match="m cannot do embeddings") as caught:
            await setup.sdk.embeddings.create(model="m", input="a")
        speech = await setup.http.post("/v1/audio/speech", json={**SPEECH, "model": "m"})
    assert caught.value.param == "model"
    assert (speech.status_code, "cannot do speech" in speech.text) == (400, True)
    assert setup.fake.calls == []


async def test_a_draining_worker_is_asked_for_again_once(open_setup: OpenSetup) -> None:
    async def drains(line: Line, request: d.WorkRequest) -> None:
        if request.lease == "lease-1":
            await line.send(d.Fail(fault=Fault(code=Code.BUSY, message="draining")))
        else:
            await line.send(d.Accepted(prompt_tokens=1), d.Embeddings(vectors=(vector(1),)), END)

    async with open_setup(model("e", "embeddings", drains)) as setup:
        answer = await setup.sdk.embeddings.create(model="e", input="a", encoding_format="float")
        await setup.fake.ledger.wait_for("release lease-2")
    assert answer.data[0].embedding == [1.0]


@pytest.mark.parametrize(
    ("frames", "status", "said"),
    [
        ((d.Accepted(prompt_tokens=1),), 502, "worker process ended"),
        ((), 502, "worker process ended"),
        (
            (d.Fail(fault=Fault(code=Code.INVALID_REQUEST, message="too long", field="input")),),
            400,
            "too long",
        ),
    ],
)
async def test_failures_of_a_worker(
    open_setup: OpenSetup, frames: tuple[d.WorkAnswer, ...], status: int, said: str
) -> None:
    async with open_setup(model("e", "embeddings", answers(*frames))) as setup:
        with pytest.raises(openai.APIStatusError, match=said) as caught:
            await setup.sdk.embeddings.create(model="e", input="a")
    assert caught.value.status_code == status


async def test_leaving_cancels(open_setup: OpenSetup) -> None:
    async def hangs(line: Line, _request: d.WorkRequest) -> None:
        await line.send(d.Accepted(prompt_tokens=1))
        await line.until_closed()

    async with open_setup(model("e", "embeddings", hangs)) as setup:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await setup.sdk.embeddings.create(model="e", input="a")

            tasks.start_soon(ask)
            await setup.fake.ledger.wait_for("accept lease-1")
            tasks.cancel_scope.cancel()
        await setup.fake.ledger.wait_for("worker closed lease-1")
        await setup.fake.ledger.wait_for("release lease-1")


# --- speech -------------------------------------------------------------------------


async def test_speech_is_streamed_as_it_is_made(open_setup: OpenSetup) -> None:
    go = anyio.Event()

    async def script(line: Line, _request: d.WorkRequest) -> None:
        await line.send(d.Accepted(prompt_tokens=4), d.Audio(data=b"RIFF"))
        await go.wait()
        await line.send(d.Audio(data=b"more"), END)

    pieces = []
    async with (
        open_setup(model("s", "speech", script)) as setup,
        setup.sdk.audio.speech.with_streaming_response.create(
            model="s", input="Hello.", voice="ann", response_format="wav", speed=2
        ) as response,
    ):
        async for piece in response.iter_bytes():
            pieces.append(piece)
            go.set()
        kind = response.headers["content-type"]
    assert (b"".join(pieces), pieces[0], kind) == (b"RIFFmore", b"RIFF", "audio/wav")
    call = setup.fake.calls[0]
    assert isinstance(call, d.Speak)
    assert (call.text, call.voice, call.format, call.speed) == ("Hello.", "ann", "wav", 2.0)


async def test_speech_as_events(open_setup: OpenSetup) -> None:
    frames = (d.Accepted(prompt_tokens=4), d.Audio(data=b"ab"), d.Audio(data=b"c"), END)
    async with open_setup(model("s", "speech", answers(*frames))) as setup:
        response = await setup.http.post(
            "/v1/audio/speech", json={**SPEECH, "stream_format": "sse"}
        )
    found = [json.loads(e.removeprefix("data: ")) for e in response.text.split("\n\n")[:-1]]
    assert [event["type"] for event in found] == [
        "speech.audio.delta",
        "speech.audio.delta",
        "speech.audio.done",
    ]
    assert b"".join(base64.b64decode(event["audio"]) for event in found[:2]) == b"abc"
    assert found[2]["usage"]["total_tokens"] == 10


async def test_sound_that_fails_is_cut_and_not_ended(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    frames = (d.Accepted(prompt_tokens=4), d.Audio(data=b"RIFF"), d.Fail(fault=fault))
    async with open_setup(model("s", "speech", answers(*frames))) as setup:
        with pytest.raises(httpx2.TransportError):
            await setup.http.post("/v1/audio/speech", json=SPEECH)
        events = await setup.http.post("/v1/audio/speech", json={**SPEECH, "stream_format": "sse"})
        await setup.fake.ledger.wait_for("release lease-2")
    assert '"code":"worker_failed"' in events.text.split("\n\n")[-2]


async def test_a_bad_voice_is_a_400(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.INVALID_REQUEST, message="no such voice", field="voice")
    async with open_setup(model("s", "speech", answers(d.Fail(fault=fault)))) as setup:
        response = await setup.http.post("/v1/audio/speech", json=SPEECH)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "voice")


# --- transcription --------------------------------------------------------------------

HEARD = (
    d.Accepted(prompt_tokens=0),
    d.Transcript(
        segments=(d.Segment(text=" Hello", start_s=0.0, end_s=1.0),), language="en", duration_s=2.5
    ),
    d.Transcript(
        segments=(
            d.Segment(text=" there.", start_s=1.0, end_s=2.0),
            d.Segment(text=" Bye.", start_s=2.0, end_s=2.5),
        )
    ),
    END,
)
FILE = ("a.wav", b"RIFF\x00\xff--boundary\r\n", "audio/wav")


async def test_transcriptions(open_setup: OpenSetup) -> None:
    async with open_setup(model("t", "transcription", answers(*HEARD))) as setup:
        plain = await setup.sdk.audio.transcriptions.create(model="t", file=FILE, language="en")
        verbose = await setup.sdk.audio.transcriptions.create(
            model="t",
            file=FILE,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            temperature=0.25,
        )
        srt: Any = await setup.sdk.audio.transcriptions.create(
            model="t", file=FILE, response_format="srt"
        )
        stream = await setup.sdk.audio.transcriptions.create(model="t", file=FILE, stream=True)
        events = [event async for event in stream]
    assert plain.text == "Hello there. Bye."
    assert (verbose.duration, verbose.language) == (2.5, "en")
    assert verbose.segments is not None
    assert [segment.text for segment in verbose.segments] == [" Hello", " there.", " Bye."]
    assert srt.startswith("1\n00:00:00,000 --> 00:00:01,000\nHello\n\n2\n")
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + [
        "transcript.text.done"
    ]
    assert [getattr(event, "delta", None) for event in events[:3]] == ["Hello", " there.", " Bye."]
    first, second, *_ = setup.fake.calls
    assert isinstance(first, d.Transcribe)
    assert isinstance(second, d.Transcribe)
    assert (first.audio, first.language) == (FILE[1], "en")
    assert (second.words, second.temperature) == (True, 0.25)


async def test_a_transcript_that_fails_says_so_last(open_setup: OpenSetup) -> None:
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    script = answers(*HEARD[:2], d.Fail(fault=fault))
    async with open_setup(model("t", "transcription", script)) as setup:
        response = await setup.http.post(
            "/v1/audio/transcriptions",
            data={"model": "t", "stream": "true"},
            files={"file": FILE},
        )
    events = response.text.split("\n\n")
    assert '"delta":"Hello"' in events[0]
    assert '"code":"worker_failed"' in events[-2]
