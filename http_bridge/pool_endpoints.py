"""Handlers of the endpoints about the pool: as it is, as it was, and what may be asked of it.

The page at ``/`` is made of these, and so can other programs' views be.
"""

from typing import Any, Final

import anyio
import msgspec
from aiohttp import hdrs, web

from daemon.wire import control as c
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.records import ModelNames, read_record
from daemon.wire.shapes import versioned
from http_bridge.app import Handler
from http_bridge.bodies import Bodies
from http_bridge.decode import decode_body
from http_bridge.errors import refuse
from http_bridge.link import DaemonLink
from http_bridge.past import STILLS_MAX, Past
from http_bridge.pool_routes import LoadBody, ModelBody
from http_bridge.told import told

STATUS_EVERY_S: Final = 1.0
"""How often a feed looks for what no record tells: leases, tokens, the queue, progress."""
FEEDS_MAX: Final = 32

_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_NO_NEWS: Final = frozenset({"now_ms", "rss_bytes"})
"""Fields of the status whose change alone is not worth an event."""


_load_decoder: Final = msgspec.json.Decoder(LoadBody)
_model_decoder: Final = msgspec.json.Decoder(ModelBody)


class PoolEndpoints:
    """The handlers, by the names of their routes."""

    def __init__(self, link: DaemonLink, bodies: Bodies) -> None:
        self._link = link
        self._bodies = bodies
        self._past = Past()
        self._feeds = 0

    def handlers(self) -> dict[str, Handler]:
        return {
            "pool": self._status,
            "pool_events": self._events,
            "pool_history": self._history,
            "pool_load": self._load,
            "pool_unload": self._unload,
            "pool_pin": self._pin,
            "pool_unpin": self._unpin,
        }

    async def _status(self, _request: web.Request) -> web.Response:
        control = await self._link.control()
        return _json(versioned(await control.status()))

    async def _history(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit")
        if limit is not None and not 1 <= limit <= STILLS_MAX:
            raise refuse("limit", f"ask for 1 to {STILLS_MAX} records")
        stills = await self._past.read(
            after=_number(request, "after"), before=_number(request, "before"), limit=limit or 500
        )
        return _json({"v": 1, "records": stills})

    async def _load(self, request: web.Request) -> web.Response:
        asked = decode_body(_load_decoder, await self._bodies.read(request))
        control = await self._link.control()
        loaded = await control.load(asked.model, ttl_s=asked.ttl_s, pin=asked.pin)
        return _json(versioned(loaded))

    async def _unload(self, request: web.Request) -> web.Response:
        asked = decode_body(_model_decoder, await self._bodies.read(request))
        control = await self._link.control()
        return _json(versioned(await control.unload(asked.model)))

    async def _pin(self, request: web.Request) -> web.Response:
        asked = decode_body(_model_decoder, await self._bodies.read(request))
        await (await self._link.control()).pin(asked.model)
        return _json({"v": 1, "model": asked.model, "pinned": True})

    async def _unpin(self, request: web.Request) -> web.Response:
        asked = decode_body(_model_decoder, await self._bodies.read(request))
        await (await self._link.control()).unpin(asked.model)
        return _json({"v": 1, "model": asked.model, "pinned": False})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        after = _number(request, "after")
        if hdrs.LAST_EVENT_ID in request.headers:
            after = _whole(request.headers[hdrs.LAST_EVENT_ID], hdrs.LAST_EVENT_ID)
        if self._feeds >= FEEDS_MAX:
            raise MlxdError(Code.QUEUE_FULL, f"{FEEDS_MAX} feeds are open; close a page")
        self._feeds += 1
        try:
            return await _Feed(request, await self._link.control()).run(after)
        finally:
            self._feeds -= 1


class _Feed:
    """One client's feed: the status, then every record, and the status again when it changed."""

    def __init__(self, request: web.Request, control: Control) -> None:
        self._request = request
        self._control = control
        self._response = web.StreamResponse(headers=_HEADERS)
        self._names = ModelNames({})
        self._news: dict[str, Any] = {}
        self._nudged = anyio.Event()

    async def run(self, after: int | None) -> web.StreamResponse:
        """Feed until the client leaves, or the last event has said why there is no more.

        Raises:
            MlxdError: The daemon could not be asked, and nothing was sent yet.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_current)
            failure = await self._follow(after)
            tasks.cancel_scope.cancel()
        if failure is not None and not self._response.prepared:
            raise failure
        return self._response

    async def _follow(self, after: int | None) -> MlxdError | None:
        """Tell every answer; how it ended, if not by the client's leaving."""
        try:
            async with self._control.watch(after=after) as answers:
                async for answer in answers:
                    await self._tell(answer)
        except MlxdError as error:
            if self._response.prepared:
                ended = {"reason": error.code.value, "message": str(error)}
                await self._send("ended", ended)
            return error
        except ConnectionResetError:
            return None  # aiohttp ends what is left of the response
        return None

    async def _tell(self, answer: c.WatchStarted | c.LogRecord | c.WatchEnded) -> None:
        if isinstance(answer, c.WatchStarted):
            await self._response.prepare(self._request)
            await self._send_status(answer.status)
        elif isinstance(answer, c.LogRecord):
            record = read_record(answer.line)
            self._names.learn(record)
            await self._send("record", told(record, self._names), answer.seq)
            self._nudged.set()
        else:
            await self._send("ended", {"reason": answer.reason})

    async def _keep_current(self) -> None:
        """Send the status after records, and when else it has changed."""
        while True:
            with anyio.move_on_after(STATUS_EVERY_S):
                await self._nudged.wait()
            self._nudged = anyio.Event()
            if not self._response.prepared:
                continue
            try:
                await self._send_status(await self._control.status())
            except (MlxdError, ConnectionResetError):
                return  # whoever follows the records meets it, too

    async def _send_status(self, status: c.StatusView) -> None:
        shown = versioned(status)
        news = {name: value for name, value in shown.items() if name not in _NO_NEWS}
        if news != self._news:
            self._news = news
            self._names.learn_workers({model.worker: model.name for model in status.models})
            await self._send("status", shown)

    async def _send(self, event: str, data: dict[str, Any], seq: int | None = None) -> None:
        lines = [f"event: {event}".encode(), b"data: " + msgspec.json.encode(data)]
        if seq is not None:
            lines.insert(0, b"id: %d" % seq)
        await self._response.write(b"\n".join(lines) + b"\n\n")


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    return None if value is None else _whole(value, name)


def _whole(value: str, field: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise refuse(field, "must be a whole number")
    return int(value)


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
