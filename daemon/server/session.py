"""One control connection: requests in, answers out, leases that end with it."""

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count, islice
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup

from daemon.eventlog.log import EventLog
from daemon.kernel import Answer, Kernel
from daemon.pool import messages as m
from daemon.server.board import StatusBoard
from daemon.server.catalog import Catalog, Choice
from daemon.server.verbs import TTL_S_MAX, ModelVerb, asked_idle, checked_priority, command_of
from daemon.server.views import Facts, estimate_view
from daemon.wire import control as c
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, FRAME_TIMEOUT_S, GARBLED
from daemon.wire.paths import Home
from daemon.wire.streams import AsyncioStream, PostedFrames

UNREAD_BYTES_MAX: Final = 16 << 20
"""Answers that wait to be read; a client that lets more pile up is cut off."""

TURN_REQUESTS: Final = 64
"""Requests that are read before others have their turn."""

HISTORY_LINES: Final = 256
CLIENT_NAME_MAX: Final = 128
"""Names stand in the event log."""

FLUSH_TIMEOUT_S: Final = 1.0

_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
_log = structlog.get_logger("server")
_hello: Final = msgspec.msgpack.Decoder(c.Hello)
_request: Final = msgspec.msgpack.Decoder(c.ControlRequest)


class _Head(msgspec.Struct):
    """What can be said of a request that cannot be understood."""

    id: int = 0
    type: str = ""


_head: Final = msgspec.msgpack.Decoder(_Head)


class SessionContext(msgspec.Struct, frozen=True):
    """What sessions share."""

    kernel: Kernel
    log: EventLog
    catalog: Catalog
    home: Home
    facts: Facts
    board: StatusBoard
    reload_config: Callable[[m.Cause], Awaitable[tuple[tuple[str, ...], tuple[str, ...]]]]
    detach: Callable[[str], None]


class _InFlight:
    """A request that is not answered yet."""

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.ticket: int | None = None


class Session:
    """Serves one connection until it ends."""

    def __init__(self, stream: AsyncioStream, context: SessionContext) -> None:
        self._context = context
        self._kernel = context.kernel
        self._frames = PostedFrames(stream, CONTROL_FRAME_BYTES_MAX)
        self._in_flight: dict[int, _InFlight] = {}
        self._leases: set[str] = set()
        self._client = c.Hello(client="unknown", pid=0)
        self._scope = anyio.CancelScope()

    async def serve(self) -> None:
        """Greet, then answer requests; whatever the client held is given back at the end."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    if await self._greet():
                        await self._read_requests(tasks)
                    with anyio.move_on_after(FLUSH_TIMEOUT_S):
                        await self._frames.flush()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._give_back()

    # --- greeting and reading -----------------------------------------------------------

    async def _greet(self) -> bool:
        try:
            with anyio.fail_after(FRAME_TIMEOUT_S):
                hello = _hello.decode(await self._frames.receive())
        except _GONE:
            return False
        except (TimeoutError, *GARBLED, MlxdError) as error:
            message = f"a connection begins with hello ({error})"
            return self._refuse(Fault(code=Code.INVALID_REQUEST, message=message))
        if len(hello.client) > CLIENT_NAME_MAX:
            message = f"the client's name has more than {CLIENT_NAME_MAX} characters"
            return self._refuse(Fault(code=Code.INVALID_REQUEST, message=message, field="client"))
        if hello.protocol_max < c.PROTOCOL_MIN or hello.protocol_min > c.PROTOCOL_MAX:
            message = (
                f"mlxd {self._context.facts.version} speaks protocol {c.PROTOCOL_MIN} to "
                f"{c.PROTOCOL_MAX}, the client {hello.protocol_min} to {hello.protocol_max}; "
                "use the mlxctl and mlx-bridge of the same release"
            )
            return self._refuse(Fault(code=Code.PROTOCOL_MISMATCH, message=message))
        self._client = hello
        facts = self._context.facts
        protocol = min(hello.protocol_max, c.PROTOCOL_MAX)
        self._answer(
            c.Welcome(protocol=protocol, server="mlxd", pid=facts.pid, version=facts.version)
        )
        return True

    def _refuse(self, fault: Fault) -> bool:
        self._answer(c.Refusal(fault=fault))
        return False

    async def _read_requests(self, tasks: TaskGroup) -> None:
        for number in count(1):
            if number % TURN_REQUESTS == 0:
                await anyio.lowlevel.checkpoint()
            try:
                payload = await self._frames.receive(FRAME_TIMEOUT_S)
            except _GONE:
                return
            except (TimeoutError, MlxdError) as error:
                self._refuse(Fault(code=Code.INVALID_REQUEST, message=str(error)))
                return
            try:
                request = _request.decode(payload)
            except GARBLED as error:
                self._answer(_not_understood(payload, error))
                continue
            self._begin(request, tasks)

    def _begin(self, request: c.ControlRequest, tasks: TaskGroup) -> None:
        if isinstance(request, c.CancelRequest):
            self._cancel(request)
        elif request.id in self._in_flight:
            self._fail(request.id, Code.INVALID_REQUEST, f"request id {request.id} is in use")
        elif isinstance(request, c.ReleaseLease):
            self._release(request)
        elif isinstance(request, c.GetStatus) and self._context.board.ready:
            self._finish(self._context.board.view(request.id))
        elif len(self._in_flight) >= c.REQUESTS_MAX:
            message = f"{c.REQUESTS_MAX} requests are already in flight on this connection"
            self._fail(request.id, Code.QUEUE_FULL, message)
        else:
            flight = self._in_flight[request.id] = _InFlight()
            if not self._acquires_at_once(request, flight):
                tasks.start_soon(self._handle, request, flight)

    def _release(self, request: c.ReleaseLease) -> None:
        self._leases.discard(request.lease)
        # Not awaited: a cancelled request must not lose the lease it gives back.
        self._kernel.post(m.Release(leases=(request.lease,)), self._cause("release"))
        self._finish(c.Released(id=request.id, lease=request.lease))

    def _acquires_at_once(self, request: c.ControlRequest, flight: _InFlight) -> bool:
        """Hand in the request if no disk has to be read for it; whether that was so."""
        if not isinstance(request, c.AcquireLease):
            return False
        choice = self._context.catalog.remembered(request.model, request.needs, self._kernel.pool)
        if choice is None:
            return False
        try:
            make = self._acquire_of(request, choice)
        except MlxdError as error:
            self._finish(c.Failed(id=request.id, fault=error.fault))
        else:
            self._kernel.post(make(self._ticket(request, flight)), self._cause("acquire"))
        return True

    # --- handling ------------------------------------------------------------------------

    async def _handle(self, request: c.ControlRequest, flight: _InFlight) -> None:
        if self._in_flight.get(request.id) is not flight:
            return  # cancelled before its turn came
        with anyio.CancelScope() as flight.scope:
            try:
                await self._dispatch(request, flight)
            except MlxdError as error:
                self._finish(c.Failed(id=request.id, fault=error.fault))
            except _GONE:
                return  # the connection ended under the answer
            except Exception as error:  # noqa: BLE001 - one request's bug ends that request
                _log.exception("request.failed", type=type(request).__name__)
                self._fail(request.id, Code.INTERNAL, f"mlxd failed at this request: {error}")

    async def _dispatch(self, request: c.ControlRequest, flight: _InFlight) -> None:
        kernel, catalog = self._kernel, self._context.catalog
        match request:
            case c.GetStatus():
                await self._context.board.make_ready()
                self._finish(self._context.board.view(request.id))
            case c.ListModels():
                models = await catalog.known(kernel.pool)
                self._finish(c.ModelsView(id=request.id, models=models))
            case c.LoadModel():
                await self._load(request, flight)
            case c.EstimateLoad():
                self._finish(await self._estimate(request))
            case c.AcquireLease():
                await self._acquire(request, flight)
            case (
                c.UnloadModel()
                | c.EvictModel()
                | c.PinModel()
                | c.UnpinModel()
                | c.SetTtl()
                | c.UnquarantineModel()
            ):
                await self._about_model(request, flight)
            case c.ClearSafeMode():
                client = self._client.client
                await self._ask(
                    request,
                    flight,
                    lambda ticket: m.ClearSafeMode(ticket=ticket, client=client),
                    "clear_safe_mode",
                )
            case c.ReloadConfig():
                keys, notes = await self._context.reload_config(self._cause("reload_config"))
                self._finish(c.ConfigReloaded(id=request.id, keys=keys, notes=notes))
            case c.DetachDaemon():
                self._finish(c.Ok(id=request.id))
                self._context.detach(f"detached by {self._client.client}")
            case c.WatchEvents():
                await self._watch(request)
            case c.CancelRequest() | c.ReleaseLease():
                raise AssertionError("handled as they arrive")

    async def _about_model(self, request: ModelVerb, flight: _InFlight) -> None:
        key = await self._context.catalog.key_of(request.model, self._kernel.pool)
        client = self._client.client
        command_of(request, key, client, 0)  # what cannot be asked is refused here
        await self._ask(
            request,
            flight,
            lambda ticket: command_of(request, key, client, ticket),
            str(request.__struct_config__.tag),
        )

    async def _load(self, request: c.LoadModel, flight: _InFlight) -> None:
        if request.path is not None:
            await self._context.catalog.register(request.model, request.path, self._kernel.pool)
        options, passed_over = await self._context.catalog.options(request.model, ())
        deadline_ms = request.deadline_ms
        make = partial(
            m.Load,
            client=self._client.client,
            options=options,
            passed_over=passed_over,
            deadline_at_ms=None if deadline_ms is None else self._deadline(deadline_ms),
            ttl_ms=asked_idle(request.ttl_s),
            pin=request.pin,
            over_budget=request.over_budget,
        )
        await self._ask(request, flight, lambda ticket: make(ticket=ticket), "load")

    async def _estimate(self, request: c.EstimateLoad) -> c.LoadEstimate:
        catalog, client = self._context.catalog, self._client.client
        if request.path is None:
            choice = await catalog.options(request.model, ())
        else:
            choice = await catalog.options_at(request.model, request.path, self._kernel.pool)
        return estimate_view(request, choice, client, self._kernel.pool, self._kernel.now_ms())

    async def _acquire(self, request: c.AcquireLease, flight: _InFlight) -> None:
        choice = await self._context.catalog.options(request.model, request.needs)
        await self._ask(request, flight, self._acquire_of(request, choice), "acquire")

    def _acquire_of(self, request: c.AcquireLease, choice: Choice) -> Callable[[int], m.Acquire]:
        """The command, but for its ticket.

        Raises:
            MlxdError: ``invalid_request`` for what cannot be asked.
        """
        options, passed_over = choice
        make = partial(
            m.Acquire,
            client=self._client.client,
            options=options,
            passed_over=passed_over,
            deadline_at_ms=self._deadline(request.deadline_ms),
            ttl_ms=asked_idle(request.ttl_s),
            priority=checked_priority(request.priority),
        )
        return lambda ticket: make(ticket=ticket)

    async def _ask(
        self,
        request: c.ControlRequest,
        flight: _InFlight,
        make: Callable[[int], m.ClientCommand],
        command: str,
    ) -> None:
        """Hand a command to the kernel; its answers come back through :meth:`_deliver`."""
        await self._kernel.send(make(self._ticket(request, flight)), self._cause(command))

    def _ticket(self, request: c.ControlRequest, flight: _InFlight) -> int:
        flight.ticket = self._kernel.ticket(partial(self._deliver, request.id))
        return flight.ticket

    def _deliver(self, request_id: int, answer: Answer) -> None:
        match answer:
            case m.AnswerProgress():
                self._progress(request_id, answer)
            case m.AnswerGranted():
                self._leases.add(answer.lease)
                self._finish(self._granted(request_id, answer))
            case m.AnswerLoaded():
                self._finish(
                    c.Loaded(
                        id=request_id,
                        model=answer.model.name,
                        worker=answer.worker,
                        load_ms=answer.waited_ms,
                        measured_bytes=answer.measured_bytes,
                    )
                )
            case m.AnswerUnloaded():
                self._finish(
                    c.Unloaded(id=request_id, model=answer.name, freed_bytes=answer.freed_bytes)
                )
            case m.AnswerDone():
                self._finish(c.Ok(id=request_id, already=answer.already))
            case m.AnswerRefused():
                self._finish(c.Failed(id=request_id, fault=answer.fault))

    def _granted(self, request_id: int, answer: m.AnswerGranted) -> c.Granted:
        return c.Granted(
            id=request_id,
            lease=answer.lease,
            model=answer.model.name,
            worker=answer.worker,
            socket=str(self._context.home.worker_socket(answer.worker)),
            kind=answer.model.kind,
            capabilities=answer.model.capabilities,
            context_tokens=answer.context_tokens,
            load_ms=answer.waited_ms,
        )

    def _progress(self, request_id: int, answer: m.AnswerProgress) -> None:
        # The next progress says more: one that finds much unread is left out.
        if self._frames.untaken_bytes < UNREAD_BYTES_MAX // 2:
            self._answer(
                c.Progress(
                    id=request_id,
                    model=answer.name,
                    phase=answer.phase,
                    done_bytes=answer.done_bytes,
                    total_bytes=answer.total_bytes,
                    eta_ms=answer.eta_ms,
                )
            )

    # --- watching ----------------------------------------------------------------------

    async def _watch(self, request: c.WatchEvents) -> None:
        subscription = self._kernel.subscribe()
        try:
            seq = self._kernel.seq
            if not 0 <= (request.after or 0) <= seq:
                raise MlxdError(
                    Code.INVALID_REQUEST, f"the log ends at seq {seq}; ask after that or less"
                )
            await self._context.board.make_ready()
            status = self._context.board.view(request.id)
            await self._frames.send(c.WatchStarted(id=request.id, seq=seq, status=status))
            if request.after is not None:
                await self._send_history(request.id, request.after, seq)
            if not request.follow:
                self._finish(c.WatchEnded(id=request.id, reason="end", seq=seq))
                return
            async for line in subscription.lines:
                if line.seq > seq:
                    seq = line.seq
                    await self._frames.send(c.LogRecord(id=request.id, seq=seq, line=line.text))
            self._finish(c.WatchEnded(id=request.id, reason="lagged", seq=seq))
        finally:
            subscription.close()

    async def _send_history(self, request_id: int, after: int, until: int) -> None:
        lines = self._context.log.read_after(after)
        while True:
            some = await anyio.to_thread.run_sync(lambda: list(islice(lines, HISTORY_LINES)))
            for line in some:
                if line.seq > until:
                    return
                await self._frames.send(c.LogRecord(id=request_id, seq=line.seq, line=line.text))
            if len(some) < HISTORY_LINES:
                return

    # --- ending requests ---------------------------------------------------------------

    def _cancel(self, request: c.CancelRequest) -> None:
        flight = self._in_flight.get(request.target)
        if flight is not None:
            self._fail(request.target, Code.CANCELLED, "the request was cancelled")
            if flight.scope is not None:
                flight.scope.cancel()
            if flight.ticket is not None:
                self._withdraw((flight.ticket,))
        self._answer(c.Cancelled(id=request.id, target=request.target))

    def _withdraw(self, tickets: tuple[int, ...]) -> None:
        self._kernel.forget(tickets)
        self._kernel.post(m.Withdraw(tickets=tickets), self._cause("withdraw"))

    async def _give_back(self) -> None:
        tickets = tuple(f.ticket for f in self._in_flight.values() if f.ticket is not None)
        self._kernel.forget(tickets)
        if tickets:
            await self._kernel.send(m.Withdraw(tickets=tickets), self._cause("disconnect"))
        if self._leases:
            leases = tuple(sorted(self._leases))
            await self._kernel.send(m.Release(leases=leases), self._cause("disconnect"))

    # --- writing -----------------------------------------------------------------------

    def _finish(self, answer: c.ControlAnswer) -> None:
        """The terminal answer of a request."""
        self._in_flight.pop(answer.id, None)
        try:
            self._answer(answer)
        except MlxdError as error:
            _log.error("answer.too_large", type=type(answer).__name__)
            fault = Fault(code=Code.INTERNAL, message=f"the answer: {error}")
            self._answer(c.Failed(id=answer.id, fault=fault))

    def _fail(self, request_id: int, code: Code, message: str) -> None:
        self._finish(c.Failed(id=request_id, fault=Fault(code=code, message=message)))

    def _answer(self, answer: msgspec.Struct) -> None:
        if self._frames.post(answer) > UNREAD_BYTES_MAX:
            _log.warning("client.lagged", client=self._client.client)
            self._scope.cancel()

    # --- small things ------------------------------------------------------------------

    def _cause(self, command: str) -> m.Cause:
        return m.Cause(command=command, client=self._client.client, pid=self._client.pid)

    def _deadline(self, deadline_ms: int) -> int:
        if not 0 <= deadline_ms <= TTL_S_MAX * 1000:
            raise MlxdError(
                Code.INVALID_REQUEST,
                f"deadline_ms is {deadline_ms}; give milliseconds from now, 0 or more",
                field="deadline_ms",
            )
        return self._kernel.now_ms() + deadline_ms


def _not_understood(payload: bytes, error: Exception) -> msgspec.Struct:
    """The typed answer to a frame that is no request of this protocol."""
    try:
        head = _head.decode(payload)
    except GARBLED:
        head = _Head()
    _, _, place = str(error).partition(" - at `$")
    fault = Fault(
        code=Code.INVALID_REQUEST,
        message=f"not understood: {error}",
        field=place.rstrip("`").lstrip(".") or None,
    )
    return c.Failed(id=head.id, fault=fault)
