"""Handlers of embeddings, speech and transcription: a call, a worker's frames, an answer."""

import msgspec
from aiohttp import web

from daemon.wire import data as d
from daemon.wire.errors import Code, MlxdError
from http_bridge import embeddings, speech, transcription
from http_bridge.app import Handler
from http_bridge.bodies import Bodies
from http_bridge.exchange import Exchange
from http_bridge.serving import Serving
from http_bridge.sse import EventStream, comment, failure_event
from http_bridge.text_endpoints import Ids
from http_bridge.transcription import Transcription, TranscriptionPlan


class MediaEndpoints:
    """The handlers, by the names of their routes."""

    def __init__(self, serving: Serving, bodies: Bodies, ids: Ids) -> None:
        self._serving = serving
        self._bodies = bodies
        self._ids = ids

    def handlers(self) -> dict[str, Handler]:
        return {
            "embeddings": self._embeddings,
            "speech": self._speech,
            "transcriptions": self._transcriptions,
        }

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await self._bodies.read(request)
        call, as_base64 = embeddings.read_embeddings(body, f"embd-{self._ids.new_id()}")
        vectors: list[bytes] = []
        async with self._serving.exchange(request, call) as exchange:
            async for answer in exchange:
                if isinstance(answer, d.Embeddings):
                    vectors += answer.vectors
            usage = _usage(exchange)
        shown = embeddings.embeddings_body(exchange.model, vectors, usage, as_base64=as_base64)
        return web.Response(body=shown, content_type="application/json")

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await self._bodies.read(request)
        plan = speech.read_speech(body, f"speech-{self._ids.new_id()}")
        if plan.as_events:
            events = self._serving.event_stream(request, comment)
        else:
            events = EventStream(request, None, content_type=plan.content_type)
        call = msgspec.structs.replace(plan.call, on_progress=events.note)

        async def pump() -> None:
            async with self._serving.exchange(request, call) as exchange:
                async for answer in exchange:
                    if isinstance(answer, d.Audio):
                        data = speech.audio_event(answer) if plan.as_events else answer.data
                        await events.send(data)
                usage = _usage(exchange)
            await events.send(speech.done_event(usage) if plan.as_events else b"")

        failure = failure_event if plan.as_events else None
        return await self._serving.stream(request, events, pump, failure)

    async def _transcriptions(self, request: web.Request) -> web.StreamResponse:
        form = await self._bodies.read_form(request)
        plan = transcription.read_transcription(form, f"trsc-{self._ids.new_id()}")
        if plan.stream:
            return await self._transcribed(request, plan)
        heard = Heard()
        async with self._serving.exchange(request, plan.call) as exchange:
            async for answer in exchange:
                heard.take(answer)
            _usage(exchange)
        return web.Response(
            body=transcription.whole_body(plan, heard.all),
            content_type=transcription.CONTENT_TYPES[plan.format],
            charset="utf-8",
        )

    async def _transcribed(
        self, request: web.Request, plan: TranscriptionPlan
    ) -> web.StreamResponse:
        events = self._serving.event_stream(request, comment)
        call = msgspec.structs.replace(plan.call, on_progress=events.note)
        heard = Heard()

        async def pump() -> None:
            async with self._serving.exchange(request, call) as exchange:
                async for answer in exchange:
                    for segment, first in heard.take(answer):
                        await events.send(transcription.delta_event(segment, first=first))
                _usage(exchange)
            await events.send(transcription.done_event(heard.all))

        return await self._serving.stream(request, events, pump, failure_event)


class Heard:
    """Joins the frames of a transcript."""

    def __init__(self) -> None:
        self._segments: list[d.Segment] = []
        self._language = ""
        self._duration_s = 0.0

    @property
    def all(self) -> Transcription:
        return Transcription(
            segments=tuple(self._segments), language=self._language, duration_s=self._duration_s
        )

    def take(self, answer: d.WorkAnswer) -> list[tuple[d.Segment, bool]]:
        """The segments that ``answer`` adds, and of each whether it is the very first."""
        if not isinstance(answer, d.Transcript):
            return []
        known = len(self._segments)
        self._segments += answer.segments
        self._language = self._language or answer.language
        self._duration_s = self._duration_s or answer.duration_s
        return [(segment, not known + index) for index, segment in enumerate(answer.segments)]


def _usage(exchange: Exchange) -> d.Usage:
    """The counts of an exchange that has ended well."""
    if exchange.done is None:
        raise MlxdError(Code.INTERNAL, "the worker ended without its counts; ask again")
    return exchange.done.usage
