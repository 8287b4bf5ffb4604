"""``/v1/audio/speech``: pure translation both ways.

Fields are OpenAI's (https://platform.openai.com/docs/api-reference/audio/createSpeech);
extensions of ours are ``priority``, ``keep_alive`` and ``ttl``.
"""

import base64
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from daemon.wire import data as d
from http_bridge.decode import decode_body
from http_bridge.exchange import Call
from http_bridge.naming import Names, Need
from http_bridge.openai_common import priority_of, ttl_s_of
from http_bridge.openai_schema import Name, NonEmpty, Strict
from http_bridge.plan import Priority
from http_bridge.sse import data_event

CONTENT_TYPES: Final[dict[str, str]] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class SpeechRequest(Strict, frozen=True, kw_only=True):
    """``POST /v1/audio/speech``."""

    model: NonEmpty
    input: Annotated[str, Meta(min_length=1, max_length=65536)]
    voice: Name
    instructions: NonEmpty | None = None
    response_format: d.AudioFormat | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    stream_format: Literal["audio", "sse"] | None = None
    priority: Priority | None = None
    keep_alive: str | float | None = None
    ttl: Annotated[float, Meta(ge=0, le=1e9)] | None = None


speech_decoder: Final = msgspec.json.Decoder(SpeechRequest)


class SpeechPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request: the call, and how its sound goes out."""

    call: Call
    content_type: str
    as_events: bool


def read_speech(body: bytes, request_id: str) -> SpeechPlan:
    """The plan of a request body.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter at fault.
    """
    request = decode_body(speech_decoder, body)
    sound = request.response_format or "mp3"  # OpenAI's documented default
    call = Call(
        model=request.model,
        needs=(Need(capability="speech"),),
        names=Names(fields={"text": "input", "format": "response_format"}),
        make=lambda granted: d.Speak(
            lease=granted.lease,
            request=request_id,
            text=request.input,
            voice=request.voice,
            format=sound,
            speed=1.0 if request.speed is None else request.speed,
            instructions=request.instructions,
        ),
        ttl_s=ttl_s_of(request.ttl, request.keep_alive),
        priority=priority_of(request.priority),
    )
    return SpeechPlan(
        call=call,
        content_type=CONTENT_TYPES[sound],
        as_events=request.stream_format == "sse",
    )


def audio_event(audio: d.Audio) -> bytes:
    """Some sound as an event."""
    return data_event(
        {"type": "speech.audio.delta", "audio": base64.b64encode(audio.data).decode()}
    )


def done_event(usage: d.Usage) -> bytes:
    """The event that ends a stream of sound."""
    counts = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    return data_event({"type": "speech.audio.done", "usage": counts})
