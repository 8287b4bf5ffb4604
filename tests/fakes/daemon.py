"""A scripted daemon and its workers, on real Unix sockets, in the real wire protocol.

For tests of clients: what the daemon grants and what each model's worker answers is a script
of the test, and everything that a client did is in the ledger, which can be waited on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import msgspec
from anyio.abc import ByteStream, TaskGroup

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, DATA_FRAME_BYTES_MAX, encode_frame
from daemon.wire.streams import FrameStream

_hello = msgspec.msgpack.Decoder(c.Hello)
_control_request = msgspec.msgpack.Decoder(c.ControlRequest)
_work_request = msgspec.msgpack.Decoder(d.WorkRequest)
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Ledger:
    """What happened, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._changed = anyio.Event()

    def add(self, entry: str) -> None:
        self.entries.append(entry)
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_for(self, entry: str, times: int = 1) -> None:
        """Return when ``entry`` has been added; fail the test after 5 s."""
        with anyio.move_on_after(5):
            while self.entries.count(entry) < times:
                await self._changed.wait()
            return
        raise AssertionError(f"{entry!r} is not among {self.entries}")


class Line:
    """A worker's end of one request's connection."""

    def __init__(self, frames: FrameStream, stream: ByteStream) -> None:
        self._frames = frames
        self._stream = stream

    async def send(self, *messages: msgspec.Struct) -> None:
        for message in messages:
            await self._frames.send(message)

    async def send_at_once(self, *messages: msgspec.Struct) -> None:
        """Send all of them in one piece."""
        frames = [encode_frame(message, DATA_FRAME_BYTES_MAX) for message in messages]
        await self._stream.send(b"".join(frames))

    async def until_closed(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while True:
                await self._frames.receive()
        except _GONE:
            return


Script = Callable[[Line, d.Generate], Awaitable[None]]
"""What a worker does with a request; returning closes the connection."""


def says(*texts: str, finish_reason: d.FinishReason = "stop", prompt_tokens: int = 5) -> Script:
    """A worker that decodes one text a step."""

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=prompt_tokens))
        for index, text in enumerate(texts):
            await line.send(d.Delta(text=text, tokens=index + 1))
        usage = d.Usage(prompt_tokens=prompt_tokens, completion_tokens=len(texts))
        await line.send(d.Done(finish_reason=finish_reason, usage=usage))

    return script


CallScript = Callable[[Line, d.WorkRequest], Awaitable[None]]
"""The same for every other kind of request."""


def answers(*frames: d.WorkAnswer) -> CallScript:
    """A worker that says the same to everybody."""

    async def script(line: Line, _request: d.WorkRequest) -> None:
        await line.send(*frames)

    return script


Report = Callable[[c.Progress], Awaitable[None]]
"""Sends one progress answer; the id is filled in."""
Load = Callable[[Report], Awaitable[None]]


async def no_wait(_report: Report) -> None:
    """A model that is resident: nothing happens before the grant."""


class FakeModel:
    """A model that the daemon knows.

    Args:
        load: Runs before a lease is granted; may report progress and wait.
        fault: Refuses every lease.
        calls: Answers requests that are no generation of text.
    """

    def __init__(
        self,
        name: str,
        script: Script,
        *,
        capabilities: tuple[str, ...] = ("text", "chat", "tools", "count_tokens"),
        load: Load = no_wait,
        fault: Fault | None = None,
        problem: str | None = None,
        calls: CallScript | None = None,
    ) -> None:
        self.name = name
        self.calls = calls
        self.script = script
        self.capabilities = capabilities
        self.load = load
        self.fault = fault
        self.problem = problem


class FakeDaemon:
    """Made by :func:`open_fake_daemon`.

    Attributes:
        ledger: "acquire NAME", "grant LEASE", "release LEASE", "cancel", "accept LEASE",
            "worker closed LEASE", "connect" and "disconnect" of control connections.
        acquired: Every acquire request.
        requests: Every generation that a worker was asked for.
        calls: Every other request that a worker got.
        read_only: What status says, as is ``stopping``.
        log: The lines of the event log; line n has the seq n + 1.
        watches: What every watch asked for.
        queue: What status says.
        silent: Answer nothing at all.
    """

    def __init__(self, folder: Path, models: Sequence[FakeModel]) -> None:
        self.folder = folder
        self.models = {model.name: model for model in models}
        self.ledger = Ledger()
        self.acquired: list[c.AcquireLease] = []
        self.requests: list[d.Generate] = []
        self.calls: list[d.WorkRequest] = []
        self.log: list[str] = []
        self.watches: list[c.WatchEvents] = []
        self.queue: tuple[c.QueuedRequest, ...] = ()
        self.read_only = False
        self.stopping = False
        self.silent = False
        self._leases = 0
        self._logged = anyio.Event()

    @property
    def control_socket(self) -> str:
        return str(self.folder / "mlxd.sock")

    def worker_socket(self, name: str) -> str:
        return str(self.folder / f"w-{list(self.models).index(name)}.sock")

    # --- control ---------------------------------------------------------------

    async def serve_control(self, stream: ByteStream) -> None:
        async with stream:
            frames = FrameStream(stream, CONTROL_FRAME_BYTES_MAX)
            _hello.decode(await frames.receive())
            await frames.send(c.Welcome(protocol=1, server="fake", pid=4242, version="9.9.9"))
            self.ledger.add("connect")
            scopes: dict[int, anyio.CancelScope] = {}
            try:
                async with anyio.create_task_group() as tasks:
                    await self._serve_requests(frames, tasks, scopes)
            finally:
                self.ledger.add("disconnect")

    async def _serve_requests(
        self, frames: FrameStream, tasks: TaskGroup, scopes: dict[int, anyio.CancelScope]
    ) -> None:
        try:
            while True:
                request = _control_request.decode(await frames.receive())
                if isinstance(request, c.CancelRequest):
                    self.ledger.add("cancel")
                    if request.target in scopes:
                        scopes[request.target].cancel()
                    await frames.send(c.Cancelled(id=request.id, target=request.target))
                elif not self.silent:
                    scopes[request.id] = anyio.CancelScope()
                    tasks.start_soon(self._answer, frames, request, scopes[request.id])
        except _GONE:
            tasks.cancel_scope.cancel()

    async def _answer(
        self, frames: FrameStream, request: c.ControlRequest, scope: anyio.CancelScope
    ) -> None:
        with suppress(*_GONE):  # who gives a lease back does not stay for the answer
            with scope:
                try:
                    await frames.send(await self._reply(frames, request))
                except MlxdError as error:
                    await frames.send(c.Failed(id=request.id, fault=error.fault))
            if scope.cancelled_caught:
                withdrawn = Fault(code=Code.CANCELLED, message="withdrawn")
                await frames.send(c.Failed(id=request.id, fault=withdrawn))

    async def _reply(self, frames: FrameStream, request: c.ControlRequest) -> c.Answer:
        match request:
            case c.GetStatus():
                return self._status(request.id)
            case c.ListModels():
                return c.ModelsView(id=request.id, models=self._known())
            case c.AcquireLease():
                return await self._acquire(frames, request)
            case c.ReleaseLease():
                self.ledger.add(f"release {request.lease}")
                return c.Released(id=request.id, lease=request.lease)
            case c.WatchEvents():
                return await self._watch(frames, request)
            case c.LoadModel() | c.UnloadModel() | c.PinModel() | c.UnpinModel():
                return self._command(request)
            case _:
                raise AssertionError(f"the bridge has no business with {request}")

    def _command(
        self, request: c.LoadModel | c.UnloadModel | c.PinModel | c.UnpinModel
    ) -> c.Answer:
        if request.model not in self.models:
            raise MlxdError(Code.NOT_FOUND, f"no model {request.model!r}", field="model")
        match request:
            case c.LoadModel():
                self.ledger.add(f"load {request.model} ttl={request.ttl_s} pin={request.pin}")
                return c.Loaded(
                    id=request.id, model=request.model, worker="w1", load_ms=5, measured_bytes=9
                )
            case c.UnloadModel():
                self.ledger.add(f"unload {request.model}")
                return c.Unloaded(id=request.id, model=request.model, freed_bytes=9)
            case c.PinModel():
                self.ledger.add(f"pin {request.model}")
            case c.UnpinModel():
                self.ledger.add(f"unpin {request.model}")
        return c.Ok(id=request.id)

    async def _watch(self, frames: FrameStream, request: c.WatchEvents) -> c.WatchEnded:
        self.watches.append(request)
        end = len(self.log)
        await frames.send(c.WatchStarted(id=request.id, seq=end, status=self._status(request.id)))
        for seq in range((end if request.after is None else request.after) + 1, end + 1):
            await frames.send(c.LogRecord(id=request.id, seq=seq, line=self.log[seq - 1]))
        while request.follow:
            await self._logged.wait()
            for seq in range(end + 1, len(self.log) + 1):
                await frames.send(c.LogRecord(id=request.id, seq=seq, line=self.log[seq - 1]))
            end = len(self.log)
        return c.WatchEnded(id=request.id, reason="end", seq=end)

    def write(self, line: str) -> None:
        """Add a record to the log; watchers that follow are sent it."""
        self.log.append(line)
        self._logged.set()
        self._logged = anyio.Event()

    async def _acquire(self, frames: FrameStream, request: c.AcquireLease) -> c.Granted:
        self.ledger.add(f"acquire {request.model}")
        self.acquired.append(request)
        model = self.models.get(request.model)
        if model is None:
            raise MlxdError(Code.NOT_FOUND, f"no model {request.model!r}", field="model")
        if model.fault is not None:
            raise MlxdError.of(model.fault)
        if lacking := [need for need in request.needs if need not in model.capabilities]:
            raise MlxdError(
                Code.INVALID_REQUEST,
                f"{model.name} cannot do {lacking[0]}",
                field=f"needs[{request.needs.index(lacking[0])}]",
            )
        await model.load(
            lambda progress: frames.send(msgspec.structs.replace(progress, id=request.id))
        )
        self._leases += 1
        lease = f"lease-{self._leases}"
        self.ledger.add(f"grant {lease}")
        return c.Granted(
            id=request.id,
            lease=lease,
            model=model.name,
            worker="1",
            socket=self.worker_socket(model.name),
            kind="text",
            capabilities=model.capabilities,
            context_tokens=2048,
        )

    def _known(self) -> tuple[c.KnownModel, ...]:
        return tuple(
            c.KnownModel(
                name=model.name,
                path=f"/models/{model.name}",
                source="configured",
                kind="text",
                capabilities=model.capabilities,
                weights_bytes=1000,
                context_tokens=2048,
                state="idle",
                created_at_ms=1_790_000_000_123,
                problem=model.problem,
            )
            for model in self.models.values()
        )

    def _status(self, request_id: int) -> c.StatusView:
        return c.StatusView(
            id=request_id,
            version="9.9.9",
            pid=4242,
            generation=1,
            started_at_ms=0,
            now_ms=1,
            seq=len(self.log),
            budget_bytes=10_000,
            committed_bytes=0,
            memory_total_bytes=20_000,
            rss_bytes=1,
            home=str(self.folder),
            read_only=self.read_only,
            stopping=self.stopping,
            warnings=(),
            models=tuple(
                c.ResidentModel(
                    name=model.name,
                    path=f"/models/{model.name}",
                    kind="text",
                    capabilities=model.capabilities,
                    state="idle",
                    worker="1",
                    pid=1,
                    claim_bytes=1,
                    measured_bytes=1,
                    context_tokens=2048,
                    leases=0,
                    running=0,
                    progress=1.0,
                    pinned=False,
                    loaded_at_ms=0,
                    last_used_at_ms=0,
                    expires_at_ms=None,
                )
                for model in self.models.values()
            ),
            queue=self.queue,
        )

    # --- workers -----------------------------------------------------------------

    async def serve_worker(self, model: FakeModel, stream: ByteStream) -> None:
        async with stream:
            frames = FrameStream(stream, DATA_FRAME_BYTES_MAX)
            _hello.decode(await frames.receive())
            await frames.send(c.Welcome(protocol=1, server="fake worker", pid=1, version="9.9.9"))
            try:
                request = _work_request.decode(await frames.receive())
            except _GONE:
                return
            if isinstance(request, d.Generate):
                self.requests.append(request)
            else:
                self.calls.append(request)
            self.ledger.add(f"accept {request.lease}")
            try:
                await self._serve(model, Line(frames, stream), request)
            except _GONE:
                pass
            finally:
                self.ledger.add(f"worker closed {request.lease}")

    async def _serve(self, model: FakeModel, line: Line, request: d.WorkRequest) -> None:
        if isinstance(request, d.Generate):
            await model.script(line, request)
        else:
            assert model.calls is not None, f"{model.name} has no script for {request}"
            await model.calls(line, request)


@asynccontextmanager
async def open_fake_daemon(folder: Path, *models: FakeModel) -> AsyncIterator[FakeDaemon]:
    """A daemon listening in ``folder``, which must have a short path.

    Leaving the block ends it as abruptly as a kill does.
    """
    fake = FakeDaemon(folder, models)
    async with anyio.create_task_group() as tasks:
        listener = await anyio.create_unix_listener(fake.control_socket)
        tasks.start_soon(listener.serve, fake.serve_control)
        listeners = [listener]
        for model in models:
            listener = await anyio.create_unix_listener(fake.worker_socket(model.name))
            tasks.start_soon(listener.serve, partial(fake.serve_worker, model))
            listeners.append(listener)
        try:
            yield fake
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                for listener in listeners:
                    await listener.aclose()
