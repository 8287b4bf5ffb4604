"""What clients say to workers: one request a connection, under a lease.

:func:`open_generation` is one request at one worker; :func:`generate` gets the lease for it,
too. Both end with their ``async with`` block, and leaving it early cancels.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeVar, Unpack

import anyio
import msgspec

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control, LeaseTerms
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.framing import DATA_FRAME_BYTES_MAX, encode_frame
from daemon.wire.streams import FrameStream, connect_unix, greet

TOGETHER_BYTES_MAX: Final = 1 << 16
"""A request of this size or less leaves with the greeting, and is there when it is heard."""

_data_answer: Final = msgspec.msgpack.Decoder(d.DataAnswer)
T = TypeVar("T")


class Generation:
    """One request at a worker, accepted: iterate for its deltas, ended by ``done``.

    Attributes:
        prompt_tokens: Counted by the engine before work began.
        done: The terminal frame, once iteration has ended.
    """

    def __init__(self, frames: FrameStream, accepted: d.Accepted) -> None:
        self.prompt_tokens = accepted.prompt_tokens
        self.done: d.Done | None = None
        self._frames = frames

    async def __aiter__(self) -> AsyncIterator[d.Delta]:
        """Deltas, one a decode step.

        Raises:
            MlxdError: The request's one terminal failure; ``worker_failed`` if the worker
                died in the middle of it.
        """
        async for batch in self.batches():
            for delta in batch:
                yield delta

    async def batches(self) -> AsyncIterator[list[d.Delta]]:
        """The same, as many at a time as have arrived; never an empty list."""
        while self.done is None:
            batch: list[d.Delta] = []
            failure: Fault | None = None
            while self.done is None and failure is None:
                answer = await _receive_data(self._frames)
                if isinstance(answer, d.Delta):
                    batch.append(answer)
                elif isinstance(answer, d.Done):
                    self.done = answer
                elif isinstance(answer, d.Fail):
                    failure = answer.fault
                if not self._frames.buffered:
                    break
            if batch:
                yield batch
            if failure is not None:
                raise MlxdError.of(failure)


async def _receive_data(frames: FrameStream) -> d.DataAnswer:
    try:
        answer: d.DataAnswer = _data_answer.decode(await frames.receive())
        return answer
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise MlxdError(
            Code.WORKER_FAILED,
            "the model's worker process ended before the answer was complete; "
            "ask again, the model will be loaded again",
        ) from error


class WorkerUnreachable(MlxdError):
    """Nobody answered on a worker's socket: nothing of the request has run."""

    def __init__(self) -> None:
        super().__init__(
            Code.WORKER_FAILED, "the model's worker process could not be reached; ask again"
        )


@asynccontextmanager
async def open_generation(
    socket: str, request: d.DataRequest, client: str
) -> AsyncIterator[Generation]:
    """Send one request to a worker; leaving the block early cancels it.

    Raises:
        WorkerUnreachable: Nobody answered.
        MlxdError: The request was refused before anything ran.
    """
    async with AsyncExitStack() as stack:
        frames = await send_to_worker(stack, socket, request, client)
        answer = await _receive_data(frames)
        if isinstance(answer, d.Fail):
            raise MlxdError.of(answer.fault)
        if not isinstance(answer, d.Accepted):
            raise MlxdError(Code.INTERNAL, "the worker began without accepting the request")
        yield Generation(frames, answer)


async def send_to_worker(
    stack: AsyncExitStack, socket: str, request: d.WorkRequest, client: str
) -> FrameStream:
    """Dial a worker for as long as ``stack`` lasts, and send it one request.

    Raises:
        WorkerUnreachable: Nobody answered.
        MlxdError: The worker refused the connection.
    """
    hello = c.Hello(client=client, pid=os.getpid())
    frame = encode_frame(request, DATA_FRAME_BYTES_MAX)
    together = len(frame) <= TOGETHER_BYTES_MAX
    try:
        stream = await stack.enter_async_context(await connect_unix(socket))
        behind = frame if together else b""
        frames, _ = await greet(stream, hello, DATA_FRAME_BYTES_MAX, behind)
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise WorkerUnreachable from error
    if not together:
        # A worker that refuses early may close before all of the request is read: its
        # answer says more than the broken pipe does.
        with suppress(anyio.BrokenResourceError):
            await frames.send_encoded(frame)
    return frames


@asynccontextmanager
async def begun(
    lease: Callable[[], AbstractAsyncContextManager[c.Granted]],
    begin: Callable[[AsyncExitStack, c.Granted], Awaitable[T]],
) -> AsyncIterator[tuple[c.Granted, T]]:
    """A lease, and what began under it; both once more if the worker was just leaving.

    Args:
        lease: Asks for the lease.
        begin: Has the granted worker begin; what it enters on the stack ends with the block.

    Raises:
        MlxdError: Anything that is known to be wrong before work begins.
    """
    for last in (False, True):
        async with AsyncExitStack() as stack:
            granted = await stack.enter_async_context(lease())
            try:
                found = await begin(stack, granted)
            except MlxdError as error:
                if not last and (error.code is Code.BUSY or isinstance(error, WorkerUnreachable)):
                    continue
                raise
            yield granted, found
            return


@asynccontextmanager
async def generate(
    control: Control,
    model: str,
    make: Callable[[c.Granted], d.DataRequest],
    *,
    client: str,
    **terms: Unpack[LeaseTerms],
) -> AsyncIterator[tuple[c.Granted, Generation]]:
    """Acquire, connect and be accepted; acquires once more if the worker was draining.

    Args:
        make: Builds the request for the lease that was granted.
        terms: As :meth:`Control.acquire` takes them.

    Raises:
        MlxdError: Anything that is known to be wrong before the first token.
    """
    lease = partial(control.lease, model, **terms)

    async def begin(stack: AsyncExitStack, granted: c.Granted) -> Generation:
        opened = open_generation(granted.socket, make(granted), client)
        return await stack.enter_async_context(opened)

    async with begun(lease, begin) as found:
        yield found
