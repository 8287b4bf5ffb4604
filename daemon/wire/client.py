"""The one client: what ``mlxctl``, ``mlx-bridge`` and the tests speak to the daemon with.

:func:`open_control` holds a control connection, which ends with its ``async with`` block,
whatever happens in it. What is said to workers is in ``generation``.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Final, TypedDict, TypeVar, Unpack

import anyio
import msgspec
from anyio.abc import ByteStream

from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, GARBLED
from daemon.wire.streams import FrameStream, connect_unix, greet

OnProgress = Callable[[c.Progress], None]
AnswerT = TypeVar("AnswerT", bound=c.Answer)


class LeaseTerms(TypedDict, total=False):
    """What :meth:`Control.acquire` takes beside a model, for those who hand it on."""

    needs: tuple[str, ...]
    deadline_ms: int
    ttl_s: c.Ttl
    priority: int
    on_progress: OnProgress | None


PENDING_ANSWERS_MAX: Final = 4096
"""Unread answers to one request; more ends a watch as ``lagged``."""

_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
_control_answer: Final = msgspec.msgpack.Decoder(c.ControlAnswer)


class _Answers:
    """Answers to one request as they come, until a terminal one or :meth:`close`."""

    def __init__(self) -> None:
        self.unread: deque[c.ControlAnswer] = deque()
        self._closed = False
        self._news = anyio.Event()

    def put(self, answer: c.ControlAnswer) -> None:
        self.unread.append(answer)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    def __aiter__(self) -> "_Answers":
        return self

    async def __anext__(self) -> c.ControlAnswer:
        while not self.unread:
            if self._closed:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self.unread.popleft()


class Control:
    """A control connection: requests in flight, each answered by its id."""

    def __init__(self, frames: FrameStream, welcome: c.Welcome) -> None:
        self.welcome = welcome
        self._frames = frames
        self._next_id = 0
        self._pending: dict[int, _Answers] = {}
        self._turns = anyio.Semaphore(c.REQUESTS_MAX, fast_acquire=True)
        self._gone: MlxdError | None = None

    @property
    def connected(self) -> bool:
        return self._gone is None

    async def status(self) -> c.StatusView:
        return await self._call(c.GetStatus(id=self._id()), c.StatusView)

    async def models(self) -> c.ModelsView:
        return await self._call(c.ListModels(id=self._id()), c.ModelsView)

    async def load(
        self,
        model: str,
        *,
        path: str | None = None,
        ttl_s: c.Ttl = None,
        pin: bool = False,
        over_budget: bool = False,
        deadline_ms: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> c.Loaded:
        """Load a model and wait until it is resident; cancelling withdraws the request."""
        request = c.LoadModel(
            id=self._id(),
            model=model,
            path=path,
            ttl_s=ttl_s,
            pin=pin,
            over_budget=over_budget,
            deadline_ms=deadline_ms,
        )
        return await self._call(request, c.Loaded, on_progress)

    async def estimate(
        self, model: str, *, path: str | None = None, over_budget: bool = False
    ) -> c.LoadEstimate:
        """What loading a model would come to; nothing changes."""
        request = c.EstimateLoad(id=self._id(), model=model, path=path, over_budget=over_budget)
        return await self._call(request, c.LoadEstimate)

    async def unload(self, model: str) -> c.Unloaded:
        """Unload a model and wait until its process is gone."""
        return await self._call(c.UnloadModel(id=self._id(), model=model), c.Unloaded)

    async def evict(self, model: str) -> c.Unloaded:
        """Take a model out of memory as the policy would."""
        return await self._call(c.EvictModel(id=self._id(), model=model), c.Unloaded)

    async def pin(self, model: str) -> None:
        """Never evict, never expire ``model``."""
        await self._call(c.PinModel(id=self._id(), model=model), c.Ok)

    async def unpin(self, model: str) -> None:
        """Let ``model`` be evicted and expire again."""
        await self._call(c.UnpinModel(id=self._id(), model=model), c.Ok)

    async def set_ttl(self, model: str, ttl_s: float | None) -> None:
        """Unload a resident model after ``ttl_s`` without use; None keeps it."""
        await self._call(c.SetTtl(id=self._id(), model=model, ttl_s=ttl_s), c.Ok)

    async def reload_config(self) -> c.ConfigReloaded:
        """Have config.toml read again; what changed."""
        return await self._call(c.ReloadConfig(id=self._id()), c.ConfigReloaded)

    async def detach(self) -> None:
        """End the daemon and leave its workers for the next one to adopt."""
        await self._call(c.DetachDaemon(id=self._id()), c.Ok)

    async def acquire(
        self,
        model: str,
        *,
        needs: tuple[str, ...] = (),
        deadline_ms: int = 120_000,
        ttl_s: c.Ttl = None,
        priority: int = 0,
        on_progress: OnProgress | None = None,
    ) -> c.Granted:
        """A lease on ``model``, loading it if need be; the caller gives it back."""
        request = c.AcquireLease(
            id=self._id(),
            model=model,
            needs=needs,
            deadline_ms=deadline_ms,
            ttl_s=ttl_s,
            priority=priority,
        )
        return await self._call(request, c.Granted, on_progress)

    async def release(self, lease: str) -> None:
        """Give a lease back."""
        await self._call(c.ReleaseLease(id=self._id(), lease=lease), c.Released)

    @asynccontextmanager
    async def lease(self, model: str, **terms: Unpack[LeaseTerms]) -> AsyncIterator[c.Granted]:
        """Hold a lease for the length of the block, on the terms of :meth:`acquire`."""
        granted = await self.acquire(model, **terms)
        try:
            yield granted
        finally:
            with anyio.move_on_after(1, shield=True):
                await self._release_quietly(granted.lease)

    @asynccontextmanager
    async def watch(
        self, after: int | None = None, *, follow: bool = True
    ) -> AsyncIterator[AsyncIterator[c.WatchStarted | c.LogRecord | c.WatchEnded]]:
        """Records of the event log: a snapshot with its seq, then what follows it."""
        request = c.WatchEvents(id=self._id(), after=after, follow=follow)
        async with self._answers(request) as answers:
            yield _watch_answers(answers, lambda: self._gone)

    async def _release_quietly(self, lease: str) -> None:
        """Give a lease back, and wait for no answer."""
        # A lease dies with its connection: a daemon that is gone has nothing to release.
        if self.connected:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._frames.send(c.ReleaseLease(id=self._id(), lease=lease))

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def _call(
        self,
        request: c.ControlRequest,
        expected: type[AnswerT],
        on_progress: OnProgress | None = None,
    ) -> AnswerT:
        async with self._answers(request) as answers:
            async for answer in answers:
                if isinstance(answer, c.Progress):
                    if on_progress is not None:
                        on_progress(answer)
                elif isinstance(answer, expected):
                    return answer
                elif isinstance(answer, c.Failed):
                    raise MlxdError.of(answer.fault)
        raise self._gone or MlxdError(Code.INTERNAL, "the daemon ended the answer early")

    @asynccontextmanager
    async def _answers(self, request: c.ControlRequest) -> AsyncIterator[_Answers]:
        """What is said to ``request``, which waits its turn if very many are in flight."""
        # What gives a lease back waits for nobody: others may wait for that lease.
        async with nullcontext() if isinstance(request, c.ReleaseLease) else self._turns:
            if self._gone is not None:
                raise self._gone
            answers = self._pending[request.id] = _Answers()
            ended = False
            try:
                await self._send(request)
                yield answers
                ended = True
            finally:
                answered = self._pending.pop(request.id, None) is None
                if self.connected:
                    withdraw = not answered and (not ended or isinstance(request, c.WatchEvents))
                    await self._leave(request.id, answers, withdraw=withdraw)

    async def _leave(self, request_id: int, answers: _Answers, *, withdraw: bool) -> None:
        """Have nothing left at the daemon of a request that nobody waits for any more."""
        if withdraw:
            await self._withdraw(request_id)
        for answer in answers.unread:
            if isinstance(answer, c.Granted):  # as its asker was leaving
                with anyio.move_on_after(1, shield=True):
                    await self._release_quietly(answer.lease)

    async def _withdraw(self, target: int) -> None:
        with anyio.move_on_after(1, shield=True):
            try:
                await self._send(c.CancelRequest(id=self._id(), target=target))
            except MlxdError as error:
                if error.code is not Code.NO_DAEMON:
                    raise

    async def _send(self, request: c.ControlRequest) -> None:
        try:
            await self._frames.send(request)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _daemon_gone() from error

    async def _serve(self) -> None:
        """Hand every answer to whoever waits for its id, until the connection ends."""
        try:
            while True:
                answer = _control_answer.decode(await self._frames.receive())
                if not self._dispatch(answer) and isinstance(answer, c.Granted):
                    # Granted while its asker was leaving: nobody else can give it back.
                    await self._frames.send(c.ReleaseLease(id=self._id(), lease=answer.lease))
        except _GONE:
            pass
        except (*GARBLED, MlxdError) as error:
            self._gone = MlxdError(
                Code.PROTOCOL_MISMATCH,
                f"the daemon sent what this mlxctl does not know ({error})",
                hint="compare the versions: mlxctl version",
            )
        finally:
            self._gone = self._gone or _daemon_gone()
            for pending in self._pending.values():
                pending.close()
            self._pending.clear()

    def _dispatch(self, answer: c.ControlAnswer) -> bool:
        """Whether somebody took the answer."""
        pending = self._pending.get(answer.id)
        if pending is None:
            return False
        pending.put(answer)
        more = isinstance(answer, c.Progress | c.WatchStarted | c.LogRecord)
        # Only a watch or a flood of progress can be too many: its reader has stalled.
        if not more or len(pending.unread) > PENDING_ANSWERS_MAX:
            pending.close()
            del self._pending[answer.id]
        return True


async def _watch_answers(
    answers: _Answers, gone: Callable[[], MlxdError | None]
) -> AsyncIterator[c.WatchStarted | c.LogRecord | c.WatchEnded]:
    seq = 0
    async for answer in answers:
        if isinstance(answer, c.Failed):
            raise MlxdError.of(answer.fault)
        if isinstance(answer, c.WatchStarted | c.LogRecord | c.WatchEnded):
            seq = answer.seq
            yield answer
            if isinstance(answer, c.WatchEnded):
                return
    if (error := gone()) is not None:
        raise _watch_broken(error, seq)
    yield c.WatchEnded(id=0, reason="lagged", seq=seq)


def _watch_broken(error: MlxdError, seq: int) -> MlxdError:
    if error.code is not Code.NO_DAEMON:
        return error
    return MlxdError(
        Code.NO_DAEMON,
        f"the daemon went away after record {seq}",
        hint=f"when it is back: mlxctl events -f --after {seq}",
    )


def _daemon_gone() -> MlxdError:
    return MlxdError(
        Code.NO_DAEMON,
        "the connection to the mlxd daemon ended",
        hint="start the daemon: mlxd",
    )


@asynccontextmanager
async def open_control(
    path: str, client: str, *, dial_grace_s: float = 0
) -> AsyncIterator[Control]:
    """A control connection to the daemon at the socket ``path``.

    Args:
        client: Who asks, as the event log will name it.
        dial_grace_s: How long to keep dialling while the daemon starts.

    Raises:
        MlxdError: ``no_daemon`` if nobody listens, ``protocol_mismatch`` if the daemon
            speaks another version.
    """
    hello = c.Hello(client=client, pid=os.getpid())
    failure: Exception | None = None
    async with await _connect(path, dial_grace_s) as stream:
        try:
            frames, welcome = await greet(stream, hello, CONTROL_FRAME_BYTES_MAX)
        except (TimeoutError, *_GONE) as error:
            raise _no_answer(path) from error
        control = Control(frames, welcome)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(control._serve)  # noqa: SLF001 - its other half
            try:
                yield control
            except Exception as error:  # noqa: BLE001 - raised below, not wrapped by the group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _connect(path: str, grace_s: float) -> ByteStream:
    deadline = anyio.current_time() + grace_s
    while True:
        try:
            return await connect_unix(path)
        except OSError as error:
            if anyio.current_time() >= deadline:
                raise _no_answer(path) from error
        await anyio.sleep(0.05)


def _no_answer(path: str) -> MlxdError:
    return MlxdError(
        Code.NO_DAEMON,
        f"no mlxd daemon answers on {path}; start the daemon: mlxd",
        hint="start the daemon: mlxd",
    )
