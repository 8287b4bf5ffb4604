"""Runs a plan: a lease, a worker, and the answer, whole or streamed.

Knows no protocol; see ``plan``. Whatever ends a handler early (the client left, the bridge
stops) leaves the ``generate`` block, which closes the worker's connection and so cancels the
generation, and gives the lease back.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio
import structlog
from aiohttp import web

from daemon.wire.client import Generation, OnProgress, generate
from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge.link import CLIENT, DaemonLink
from http_bridge.plan import Plan, Reply
from http_bridge.sse import BEGIN_AFTER_S, KEEP_ALIVE_S, EventStream

DEADLINE_MS: Final = 300_000
"""How long a request may wait for room and for a load: large models take minutes, and the
official SDKs wait ten."""

_STOPPING: Final = Fault(
    code=Code.SHUTTING_DOWN, message="the bridge is stopping; ask again in a moment"
)
_log: Final = structlog.get_logger()


class Serving:
    """Serves plans until it is told to stop."""

    def __init__(
        self,
        link: DaemonLink,
        *,
        begin_after_s: float = BEGIN_AFTER_S,
        keep_alive_s: float = KEEP_ALIVE_S,
        deadline_ms: int = DEADLINE_MS,
    ) -> None:
        self._link = link
        self._begin_after_s = begin_after_s
        self._keep_alive_s = keep_alive_s
        self._deadline_ms = deadline_ms
        self._running: set[anyio.CancelScope] = set()
        self._stopping = False
        self._idle = anyio.Event()

    async def answer(self, request: web.Request, plan: Plan, reply: Reply) -> web.StreamResponse:
        """The response to a plan, as it asks to have it.

        Raises:
            MlxdError: A failure that no response has said yet.
            ConnectionResetError: The client is gone.
        """
        if plan.stream:
            return await self._stream(request, plan, reply)
        return await self._whole(plan, reply)

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, wait for running ones, then end those left with an error."""
        self._stopping = True
        if self._running:
            with anyio.move_on_after(grace_s):
                await self._idle.wait()
            for scope in tuple(self._running):
                scope.cancel()

    @contextmanager
    def _counted(self) -> Iterator[anyio.CancelScope]:
        """A scope that :meth:`stop` can end."""
        if self._stopping:
            raise MlxdError.of(_STOPPING)
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                yield scope
            finally:
                self._running.discard(scope)
                if self._stopping and not self._running:
                    self._idle.set()

    @asynccontextmanager
    async def _generation(
        self, plan: Plan, on_progress: OnProgress | None = None
    ) -> AsyncIterator[tuple[str, Generation]]:
        """The accepted generation and the name of the model that serves it."""
        control = await self._link.control()
        async with generate(
            control,
            plan.model,
            plan.for_lease,
            client=CLIENT,
            needs=plan.needs,
            deadline_ms=self._deadline_ms,
            ttl_s=plan.ttl_s,
            on_progress=on_progress,
        ) as (granted, generation):
            yield granted.model, generation

    async def _whole(self, plan: Plan, reply: Reply) -> web.Response:
        with self._counted():
            async with self._generation(plan) as (model, generation):
                deltas = [delta async for delta in generation]
                assert generation.done is not None
            body = reply.whole(model, deltas, generation.done)
            return web.Response(body=body, content_type="application/json")
        raise MlxdError.of(_STOPPING)

    async def _stream(self, request: web.Request, plan: Plan, reply: Reply) -> web.StreamResponse:
        events = EventStream(
            request, begin_after_s=self._begin_after_s, keep_alive_s=self._keep_alive_s
        )
        fault: Fault | None = _STOPPING
        gone: ConnectionResetError | None = None
        with self._counted():
            # Exceptions do not cross the task group, which would wrap them.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(events.keep_alive)
                try:
                    fault = await self._pump(plan, reply, events)
                except ConnectionResetError as error:
                    gone = error
                tasks.cancel_scope.cancel()
        if gone is not None:
            raise gone
        if fault is not None:
            if not events.begun:
                raise MlxdError.of(fault)
            await events.send(reply.failure(fault))
        await events.end()
        return events.response

    async def _pump(self, plan: Plan, reply: Reply, events: EventStream) -> Fault | None:
        """Stream one generation to its end; the fault is what ended it early."""
        try:
            async with self._generation(plan, events.note) as (model, generation):
                await events.send(reply.begin(model))
                async for batch in generation.batches():
                    if data := b"".join(map(reply.delta, batch)):
                        await events.send(data)
                assert generation.done is not None
                await events.send(reply.end(generation.done))
        except MlxdError as error:
            return error.fault
        except ConnectionResetError:
            raise
        except Exception:  # noqa: BLE001 - a bug of ours must not end a stream in silence
            _log.exception("stream.failed", model=plan.model)
            return Fault(code=Code.INTERNAL, message="the bridge failed; see its log")
        return None
