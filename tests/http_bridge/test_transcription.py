"""Transcription: forms in, five formats out."""

import json
from typing import Any

import pytest
from openai.types.audio import (
    Transcription as OpenAITranscription,
)
from openai.types.audio import (
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.naming import Need
from http_bridge.sse import failure_event
from http_bridge.transcription import (
    Transcription,
    TranscriptionPlan,
    delta_event,
    done_event,
    read_transcription,
    whole_body,
)

GRANTED = c.Granted(
    id=1, lease="l", model="m", worker="1", socket="s", kind="transcription", capabilities=(),
    context_tokens=1,
)  # fmt: skip
HEARD = Transcription(
    segments=(
        d.Segment(
            text=" Hello there.",
            start_s=0.0,
            end_s=1.25,
            tokens=(1, 2),
            words=(
                d.Word(text=" Hello", start_s=0.0, end_s=0.5),
                d.Word(text=" there.", start_s=0.5, end_s=1.25),
            ),
        ),
        d.Segment(text=" Bye.", start_s=3725.5, end_s=3726.0, seek=3000, avg_logprob=-0.5),
    ),
    language="en",
    duration_s=3726.5,
)


def read(**fields: bytes | list[bytes]) -> TranscriptionPlan:
    form: dict[str, list[bytes]] = {"model": [b"m"], "file": [b"RIFF"]}
    for name, value in fields.items():
        form[name] = value if isinstance(value, list) else [value]
    return read_transcription(form, "trsc-1")


def test_defaults_are_openais() -> None:
    plan = read()
    assert (plan.format, plan.stream, plan.call.needs) == (
        "json",
        False,
        (Need(capability="transcription"),),
    )
    assert plan.call.make(GRANTED) == d.Transcribe(lease="l", request="trsc-1", audio=b"RIFF")


def test_every_honoured_field_reaches_the_worker() -> None:
    plan = read(
        language=b"de",
        prompt=b"Gr\xc3\xbc\xc3\x9fe",
        temperature=b"0.5",
        response_format=b"verbose_json",
        stream=b"false",
        ttl=b"60",
        **{"timestamp_granularities[]": [b"word"]},
    )
    assert (plan.words, plan.segments, plan.call.ttl_s) == (True, False, 60)
    assert plan.call.make(GRANTED) == d.Transcribe(
        lease="l",
        request="trsc-1",
        audio=b"RIFF",
        language="de",
        prompt="Gr\u00fc\u00dfe",
        temperature=0.5,
        words=True,
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": b""}, "file"),
        ({"file": [b"a", b"b"]}, "file"),
        ({"model": b""}, "model"),
        ({"language": b"english"}, "language"),
        ({"temperature": b"warm"}, "temperature"),
        ({"temperature": b"nan"}, "temperature"),
        ({"temperature": b"2"}, "temperature"),
        ({"response_format": b"xml"}, "response_format"),
        ({"prompt": b"\xff"}, "prompt"),
        ({"prompt": [b"a", b"b"]}, "prompt"),
        ({"stream": b"yes"}, "stream"),
        ({"stream": b"true", "response_format": b"srt"}, "stream"),
        ({"timestamp_granularities[]": b"word"}, "timestamp_granularities"),
        (
            {"timestamp_granularities[]": b"page", "response_format": b"verbose_json"},
            "timestamp_granularities[0]",
        ),
        ({"include[]": b"logprobs"}, "include"),
        ({"chunking_strategy": b"auto"}, "chunking_strategy"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(MlxdError) as caught:
        read(**fields)
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == param


def test_a_form_without_a_file_says_so() -> None:
    with pytest.raises(MlxdError, match="file: required, and missing"):
        read_transcription({"model": [b"m"]}, "trsc-1")


def test_json_and_text() -> None:
    body = whole_body(read(), HEARD)
    shown = OpenAITranscription.model_validate_json(body)
    assert shown.text == "Hello there. Bye."
    assert json.loads(body)["usage"] == {"type": "duration", "seconds": 3726.5}
    assert whole_body(read(response_format=b"text"), HEARD) == b"Hello there. Bye.\n"


def test_subtitles() -> None:
    assert whole_body(read(response_format=b"srt"), HEARD).decode() == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello there.\n\n"
        "2\n01:02:05,500 --> 01:02:06,000\nBye.\n\n"
    )
    assert whole_body(read(response_format=b"vtt"), HEARD).decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello there.\n\n"
        "01:02:05.500 --> 01:02:06.000\nBye.\n\n"
    )


def test_verbose_json() -> None:
    body = whole_body(read(response_format=b"verbose_json"), HEARD)
    shown = TranscriptionVerbose.model_validate_json(body)
    assert (shown.language, shown.duration, shown.text) == ("en", 3726.5, "Hello there. Bye.")
    assert shown.segments is not None
    assert [(s.id, s.seek, s.start, s.avg_logprob) for s in shown.segments] == [
        (0, 0, 0.0, 0.0),
        (1, 3000, 3725.5, -0.5),
    ]
    assert shown.words is None
    both = [b"word", b"segment"]
    plan = read(response_format=b"verbose_json", **{"timestamp_granularities[]": both})
    shown = TranscriptionVerbose.model_validate_json(whole_body(plan, HEARD))
    assert shown.words is not None
    assert [(w.word, w.start, w.end) for w in shown.words] == [
        ("Hello", 0.0, 0.5),
        ("there.", 0.5, 1.25),
    ]
    assert shown.segments is not None


def test_events() -> None:
    first, second = HEARD.segments
    data = delta_event(first, first=True) + delta_event(second, first=False) + done_event(HEARD)
    found = [json.loads(event.removeprefix(b"data: ")) for event in data.split(b"\n\n")[:-1]]
    deltas = [TranscriptionTextDeltaEvent.model_validate(event) for event in found[:2]]
    last = TranscriptionTextDoneEvent.model_validate(found[2])
    assert "".join(delta.delta for delta in deltas) == last.text == "Hello there. Bye."
    fault = Fault(code=Code.WORKER_FAILED, message="gone")
    assert b'"code":"worker_failed"' in failure_event(fault)
