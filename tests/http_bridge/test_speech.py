"""Speech: what is asked of the voice, and the events that carry its sound."""

import base64
import json
from typing import Any

import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.naming import Need
from http_bridge.speech import (
    SpeechPlan,
    audio_event,
    done_event,
    read_speech,
)
from http_bridge.sse import failure_event

GRANTED = c.Granted(
    id=1, lease="l", model="m", worker="1", socket="s", kind="speech", capabilities=(),
    context_tokens=1,
)  # fmt: skip


def read(**fields: Any) -> SpeechPlan:
    body = {"model": "m", "input": "Hello.", "voice": "ann", **fields}
    return read_speech(json.dumps(body).encode(), "speech-1")


def test_defaults_are_openais() -> None:
    plan = read()
    assert (plan.content_type, plan.as_events, plan.call.needs) == (
        "audio/mpeg",
        False,
        (Need(capability="speech"),),
    )
    assert plan.call.make(GRANTED) == d.Speak(
        lease="l", request="speech-1", text="Hello.", voice="ann", format="mp3"
    )


def test_every_honoured_parameter_reaches_the_worker() -> None:
    plan = read(
        response_format="pcm", speed=2, instructions="Gently.", stream_format="sse", keep_alive="5m"
    )
    assert (plan.content_type, plan.as_events, plan.call.ttl_s) == ("audio/pcm", True, 300)
    assert plan.call.make(GRANTED) == d.Speak(
        lease="l",
        request="speech-1",
        text="Hello.",
        voice="ann",
        format="pcm",
        speed=2.0,
        instructions="Gently.",
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "x" * 65537}, "input"),
        ({"voice": None}, "voice"),
        ({"voice": {"id": "x"}}, "voice"),
        ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"stream_format": "raw"}, "stream_format"),
        ({"instructions": ""}, "instructions"),
        ({"lang": "en"}, "lang"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.fault.field == param


def test_events() -> None:
    def payload(event: bytes) -> Any:
        assert event.endswith(b"\n\n")
        return json.loads(event.removeprefix(b"data: "))

    sound = payload(audio_event(d.Audio(data=b"\x00\xff")))
    assert sound["type"] == "speech.audio.delta"
    assert base64.b64decode(sound["audio"]) == b"\x00\xff"
    assert payload(done_event(d.Usage(prompt_tokens=3, completion_tokens=9))) == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12},
    }
    failed = payload(failure_event(Fault(code=Code.WORKER_FAILED, message="gone")))
    assert failed["error"]["code"] == "worker_failed"
