"""Runs a plan: a lease, a worker, and the answer, whole or streamed.

Knows no protocol; see ``plan``. Whatever ends a handler early (the client left, the bridge
stops) leaves the ``generate`` block, which closes the worker's connection and so cancels the
generation, and gives the lease back.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import anyio
import structlog
from aiohttp import web

from daemon.wire import data as d
from daemon.wire.client import OnProgress
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.generation import Generation, generate, open_generation
from http_bridge.exchange import Call, Exchange, open_exchange
from http_bridge.link import CLIENT, DaemonLink
from http_bridge.metrics import Metrics, Timing
from http_bridge.naming import capabilities_of
from http_bridge.plan import Answer, Plan, Reply
from http_bridge.sse import BEGIN_AFTER_S, KEEP_ALIVE_S, EventStream, Waiting

DEADLINE_MS: Final = 300_000
"""How long a request may wait for room and for a load: large models take minutes, and the
official SDKs wait ten."""

_STOPPING: Final = Fault(
    code=Code.SHUTTING_DOWN, message="the bridge is stopping; ask again in a moment"
)
_Take = Callable[[int, list[d.Delta]], Awaitable[None]]
_log: Final = structlog.get_logger()


class Serving:
    """Serves plans until it is told to stop."""

    def __init__(
        self,
        link: DaemonLink,
        metrics: Metrics,
        *,
        begin_after_s: float = BEGIN_AFTER_S,
        keep_alive_s: float = KEEP_ALIVE_S,
        deadline_ms: int = DEADLINE_MS,
    ) -> None:
        self._link = link
        self._metrics = metrics
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
        timings = self._metrics.timings(request, plan.choices)
        if plan.stream:
            return await self._generated(request, plan, reply, timings)
        return await self._whole(plan, reply, timings)

    @asynccontextmanager
    async def exchange(self, request: web.Request, call: Call) -> AsyncIterator[Exchange]:
        """A worker's frames for a request that is no generation of text.

        Raises:
            MlxdError: The worker refused, or the bridge stops before the block's end.
        """
        (timing,) = self._metrics.timings(request, 1)
        with self._counted() as scope:
            control = await self._link.control()
            opened = open_exchange(control, call, self._deadline_ms)
            async with _in_clients_words(call), opened as exchange:
                timing.accepted(exchange.model)
                yield exchange
            if exchange.done is not None:
                timing.done(exchange.done.usage)
        if scope.cancelled_caught:
            raise MlxdError.of(_STOPPING)

    def event_stream(self, request: web.Request, waiting: Waiting) -> EventStream:
        """A streamed response in this bridge's rhythm."""
        return EventStream(
            request, waiting, begin_after_s=self._begin_after_s, keep_alive_s=self._keep_alive_s
        )

    async def stream(
        self,
        request: web.Request,
        events: EventStream,
        pump: Callable[[], Awaitable[None]],
        failure: Callable[[Fault], bytes] | None,
    ) -> web.StreamResponse:
        """A streamed response that ends well, whatever happens.

        Args:
            pump: Sends everything.
            failure: The event that closes a stream which has failed; without one, for bytes
                that can hold no event, the connection is cut.

        Raises:
            MlxdError: A failure before anything was sent.
            ConnectionResetError: The client is gone.
        """
        fault: Fault | None = _STOPPING
        gone: ConnectionResetError | None = None
        with self._counted():
            # Exceptions do not cross the task group, which would wrap them.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(events.keep_alive)
                try:
                    fault = await _fault_of(pump)
                except ConnectionResetError as error:
                    gone = error
                tasks.cancel_scope.cancel()
        if gone is not None:
            raise gone
        if fault is not None:
            if not events.begun:
                raise MlxdError.of(fault)
            self._metrics.broken(request, fault)
            if failure is None:
                events.cut()
                return events.response
            await events.send(failure(fault))
        await events.end()
        return events.response

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
    async def _generations(
        self, plan: Plan, on_progress: OnProgress | None = None
    ) -> AsyncIterator[tuple[str, list[Generation]]]:
        """The accepted generations, one a choice, and the name of the model that serves them."""
        control = await self._link.control()
        async with AsyncExitStack() as stack:
            first = generate(
                control,
                plan.model,
                plan.for_lease,
                client=CLIENT,
                needs=capabilities_of(plan.needs),
                deadline_ms=self._deadline_ms,
                ttl_s=plan.ttl_s,
                priority=plan.priority,
                on_progress=on_progress,
            )
            granted, generation = await stack.enter_async_context(first)
            generations = [generation]
            for choice in range(1, plan.choices):
                request = plan.for_lease(granted, choice)
                other = open_generation(granted.socket, request, CLIENT)
                generations.append(await stack.enter_async_context(other))
            yield granted.model, generations

    async def _whole(self, plan: Plan, reply: Reply, timings: list[Timing]) -> web.Response:
        with self._counted():
            deltas: list[list[d.Delta]] = [[] for _ in range(plan.choices)]

            async def take(choice: int, batch: list[d.Delta]) -> None:
                timings[choice].step(batch)
                deltas[choice].extend(batch)

            async with _in_clients_words(plan), self._generations(plan) as (model, generations):
                _accepted(timings, model)
                await _drain(generations, take)
                ends = [_end(generation) for generation in generations]
            for timing, end in zip(timings, ends, strict=True):
                timing.done(end.usage)
            answers = [Answer(*pair) for pair in zip(deltas, ends, strict=True)]
            body = reply.whole(model, answers)
            return web.Response(body=body, content_type="application/json")
        raise MlxdError.of(_STOPPING)

    async def _generated(
        self, request: web.Request, plan: Plan, reply: Reply, timings: list[Timing]
    ) -> web.StreamResponse:
        events = self.event_stream(request, reply.waiting)

        async def take(choice: int, batch: list[d.Delta]) -> None:
            timings[choice].step(batch)
            if data := b"".join(reply.delta(delta, choice) for delta in batch):
                await events.send(data)

        async def finish(choice: int, done: d.Done) -> None:
            timings[choice].done(done.usage)
            await events.send(reply.end(done, choice))

        async def pump() -> None:
            opened = self._generations(plan, events.note)
            async with _in_clients_words(plan), opened as (model, generations):
                _accepted(timings, model)
                await events.send(reply.begin(model, generations[0].prompt_tokens))
                await _drain(generations, take, finish)

        return await self.stream(request, events, pump, reply.failure)


@asynccontextmanager
async def _in_clients_words(asked: Plan | Call) -> AsyncIterator[None]:
    """Faults of the block name the field as the client does."""
    try:
        yield
    except MlxdError as error:
        raise MlxdError.of(asked.said_to_client(error.fault)) from error


async def _fault_of(pump: Callable[[], Awaitable[None]]) -> Fault | None:
    """What ended a stream early."""
    try:
        await pump()
    except MlxdError as error:
        return error.fault
    except ConnectionResetError:
        raise
    except Exception:  # noqa: BLE001 - a bug of ours must not end a stream in silence
        _log.exception("stream.failed")
        return Fault(code=Code.INTERNAL, message="the bridge failed; see its log")
    return None


async def _drain(
    generations: Sequence[Generation],
    take: _Take,
    finish: Callable[[int, d.Done], Awaitable[None]] | None = None,
) -> None:
    """Hand on every batch of every choice; the first failure of one ends them all."""
    failures: list[Exception] = []

    async def one(choice: int, generation: Generation) -> None:
        async for batch in generation.batches():
            await take(choice, batch)
        if finish is not None:
            await finish(choice, _end(generation))

    async def guarded(choice: int, generation: Generation) -> None:
        # Exceptions do not cross the task group, which would wrap them.
        try:
            await one(choice, generation)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            tasks.cancel_scope.cancel()

    if len(generations) == 1:
        await one(0, generations[0])
        return
    async with anyio.create_task_group() as tasks:
        for choice, generation in enumerate(generations):
            tasks.start_soon(guarded, choice, generation)
    if failures:
        raise failures[0]


def _accepted(timings: list[Timing], model: str) -> None:
    for timing in timings:
        timing.accepted(model)


def _end(generation: Generation) -> d.Done:
    assert generation.done is not None
    return generation.done
