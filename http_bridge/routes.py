"""What is served where: one table for the router, for ``/openapi.json`` and for the docs."""

from typing import Final

import msgspec

from http_bridge.anthropic_schema import CountRequest, MessagesRequest
from http_bridge.embeddings import EmbeddingsRequest
from http_bridge.openai_responses_schema import ResponsesRequest
from http_bridge.openai_schema import ChatRequest, CompletionRequest
from http_bridge.speech import SpeechRequest
from http_bridge.transcription import TranscriptionForm


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint.

    Attributes:
        name: Of the handler.
        body: The shape of its request body, if it takes one.
        answers: Content types of its answers.
        form: Whether the body is a form with a file, and not JSON.
        query: Its query parameters: whole numbers, all optional.
    """

    method: str
    path: str
    name: str
    summary: str
    body: type[msgspec.Struct] | None = None
    answers: tuple[str, ...] = ("application/json",)
    form: bool = False
    query: tuple[str, ...] = ()


_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/chat/completions",
        name="chat",
        summary="Chat, in OpenAI's older form",
        body=ChatRequest,
        answers=(_JSON, _EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/completions",
        name="completions",
        summary="Continue a prompt as it is",
        body=CompletionRequest,
        answers=(_JSON, _EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/responses",
        name="responses",
        summary="Chat, in OpenAI's newer form; stateless",
        body=ResponsesRequest,
        answers=(_JSON, _EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/messages",
        name="messages",
        summary="Chat, in Anthropic's form",
        body=MessagesRequest,
        answers=(_JSON, _EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/messages/count_tokens",
        name="count_tokens",
        summary="How many tokens a conversation has",
        body=CountRequest,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        name="embeddings",
        summary="Vectors of texts",
        body=EmbeddingsRequest,
    ),
    Route(
        method="POST",
        path="/v1/audio/speech",
        name="speech",
        summary="Text to speech, streamed",
        body=SpeechRequest,
        answers=("audio/*", _EVENTS),
    ),
    Route(
        method="POST",
        path="/v1/audio/transcriptions",
        name="transcriptions",
        summary="Speech to text",
        body=TranscriptionForm,
        answers=(_JSON, _EVENTS, "text/plain"),
        form=True,
    ),
    Route(method="GET", path="/v1/models", name="models", summary="Models that can serve"),
    Route(method="GET", path="/v1/models/{id}", name="model", summary="One model"),
    Route(
        method="GET",
        path="/healthz",
        name="healthz",
        summary="200 while requests can be served, else 503; needs no key",
    ),
    Route(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Metrics for Prometheus",
        answers=("text/plain",),
    ),
    Route(method="GET", path="/openapi.json", name="openapi", summary="This description"),
)
FORM_PATHS: Final = frozenset(route.path for route in ROUTES if route.form)
