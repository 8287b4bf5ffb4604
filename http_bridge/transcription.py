"""``/v1/audio/transcriptions``: pure translation both ways.

Fields are OpenAI's (https://platform.openai.com/docs/api-reference/audio/createTranscription),
sent as a form; extensions of ours are ``priority``, ``keep_alive`` and ``ttl``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire import data as d
from http_bridge.decode import convert_part
from http_bridge.errors import refuse
from http_bridge.exchange import Call
from http_bridge.naming import Names, Need
from http_bridge.openai_common import priority_of, ttl_s_of
from http_bridge.openai_schema import NonEmpty, Strict
from http_bridge.plan import Priority
from http_bridge.sse import data_event

Form = Mapping[str, Sequence[bytes]]
TranscriptFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]

LISTS: Final = frozenset({"timestamp_granularities"})
NUMBERS: Final = frozenset({"temperature", "ttl"})
CONTENT_TYPES: Final[dict[str, str]] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
}

_json: Final = msgspec.json.Encoder()


class TranscriptionForm(Strict, frozen=True, kw_only=True):
    """``POST /v1/audio/transcriptions``; ``file`` is the sound itself."""

    model: NonEmpty
    file: Annotated[bytes, Meta(min_length=1)]
    language: Annotated[str, Meta(pattern="^[a-z]{2,3}$")] | None = None
    prompt: str | None = None
    response_format: TranscriptFormat = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ()
    stream: Literal["true", "false", "True", "False"] = "false"
    priority: Priority | None = None
    keep_alive: str | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class TranscriptionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request: the call, and how its text goes out."""

    call: Call
    format: TranscriptFormat
    words: bool
    segments: bool
    stream: bool


class Transcription(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was understood."""

    segments: tuple[d.Segment, ...]
    language: str
    duration_s: float

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()


def read_transcription(form: Form, request_id: str) -> TranscriptionPlan:
    """The plan of a form.

    Raises:
        MlxdError: ``invalid_request`` naming the field at fault.
    """
    asked = _decoded(form)
    stream = asked.stream.lower() == "true"
    granularities = asked.timestamp_granularities
    if granularities and asked.response_format != "verbose_json":
        raise refuse("timestamp_granularities", "only with response_format verbose_json")
    if stream and asked.response_format not in {"json", "text"}:
        raise refuse("stream", f"{asked.response_format} comes as a whole; leave stream out")
    words = "word" in granularities
    call = Call(
        model=asked.model,
        needs=(Need(capability="transcription"),),
        names=Names(fields={"audio": "file"}),
        make=lambda granted: d.Transcribe(
            lease=granted.lease,
            request=request_id,
            audio=asked.file,
            language=asked.language,
            prompt=asked.prompt,
            temperature=asked.temperature,
            words=words,
        ),
        ttl_s=ttl_s_of(asked.ttl, asked.keep_alive),
        priority=priority_of(asked.priority),
    )
    return TranscriptionPlan(
        call=call,
        format=asked.response_format,
        words=words,
        segments=not granularities or "segment" in granularities,
        stream=stream,
    )


def _decoded(form: Form) -> TranscriptionForm:
    values: dict[str, Any] = {}
    for key, items in form.items():
        name = key.removesuffix("[]")
        if len(items) > 1 and name not in LISTS:
            raise refuse(name, "given twice; send it once")
        if name == "file":
            values[name] = items[0]
        elif name in LISTS:
            values[name] = [_text(item, name) for item in items]
        else:
            text = _text(items[0], name)
            values[name] = _number(text, name) if name in NUMBERS else text
    if re.fullmatch("-?[0-9]{1,2}", str(values.get("priority"))):
        values["priority"] = int(values["priority"])
    decoded: TranscriptionForm = convert_part(values, TranscriptionForm, "")
    return decoded


def _text(item: bytes, name: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise refuse(name, "is not UTF-8; send it as text") from error


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise refuse(name, f"{text!r} is not a number")
    return number


def whole_body(plan: TranscriptionPlan, heard: Transcription) -> bytes:
    """What was understood, in the format that was asked for."""
    match plan.format:
        case "text":
            return heard.text.encode() + b"\n"
        case "srt":
            return subtitles(heard.segments, mark=",").encode()
        case "vtt":
            return b"WEBVTT\n\n" + subtitles(heard.segments, mark=".", numbered=False).encode()
        case "json":
            return _json.encode({"text": heard.text, "usage": _usage(heard)})
        case "verbose_json":
            return _json.encode(_verbose(plan, heard))


def subtitles(segments: Sequence[d.Segment], *, mark: str, numbered: bool = True) -> str:
    """Cues of SubRip (``mark`` is a comma) or WebVTT (a full stop, and no numbers)."""
    cues = [
        (f"{number}\n" if numbered else "")
        + f"{_clock(segment.start_s, mark)} --> {_clock(segment.end_s, mark)}\n"
        + f"{segment.text.strip()}\n\n"
        for number, segment in enumerate(segments, 1)
    ]
    return "".join(cues)


def delta_event(segment: d.Segment, *, first: bool) -> bytes:
    """A segment as an event; the first one without its leading blank."""
    text = segment.text.lstrip() if first else segment.text
    return data_event({"type": "transcript.text.delta", "delta": text})


def done_event(heard: Transcription) -> bytes:
    """The event that ends a stream."""
    return data_event({"type": "transcript.text.done", "text": heard.text})


def _verbose(plan: TranscriptionPlan, heard: Transcription) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "task": "transcribe",
        "language": heard.language,
        "duration": heard.duration_s,
        "text": heard.text,
        "usage": _usage(heard),
    }
    if plan.segments:
        shown["segments"] = [_segment(*indexed) for indexed in enumerate(heard.segments)]
    if plan.words:
        shown["words"] = [
            {"word": word.text.strip(), "start": word.start_s, "end": word.end_s}
            for segment in heard.segments
            for word in segment.words
        ]
    return shown


def _segment(index: int, segment: d.Segment) -> dict[str, Any]:
    return {
        "id": index,
        "seek": segment.seek,
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _usage(heard: Transcription) -> dict[str, Any]:
    return {"type": "duration", "seconds": heard.duration_s}


def _clock(time_s: float, mark: str) -> str:
    ms = round(time_s * 1000)
    hours, ms = divmod(ms, 3_600_000)
    minutes, ms = divmod(ms, 60_000)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{mark}{ms % 1000:03}"
