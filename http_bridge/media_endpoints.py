"""Handlers of embeddings, speech and transcription: a call, a worker's frames, an answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog
from aiohttp import web

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge import embeddings, speech, transcription
from http_bridge.app import Handler
from http_bridge.bodies import Bodies
from http_bridge.exchange import Exchange
from http_bridge.serving import Serving
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
