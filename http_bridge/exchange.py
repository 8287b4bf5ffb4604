"""A worker's connection for requests that are no generation of text.

Embeddings, speech, transcription and the counting of tokens go the way of a generation: a
lease, one request frame, :class:`~daemon.wire.data.Accepted`, frames, one terminal frame.
Leaving the block early cancels.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import anyio
import msgspec

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control, OnProgress
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.wire.generation import begun, send_to_worker
from daemon.wire.streams import FrameStream
from http_bridge.link import CLIENT
from http_bridge.naming import Names, Need, capabilities_of, in_clients_words

_answer: Final = msgspec.msgpack.Decoder(d.WorkAnswer)
_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request for one exchange.

    Attributes:
        model: As the caller named it.
        needs: What the model must be able to do; the first that it cannot is refused.
        make: The worker's request for the lease that was granted.
        names: What the client calls the fields of that request.
        messages: The request's conversation, if it has one.
        ttl_s: Idle seconds after which the model may be unloaded; None leaves it as it is.
        priority: Before (above 0) or after (below 0) others that wait for a load.
        on_progress: Hears how a load goes on.
    """

    model: str
    needs: tuple[Need, ...]
    make: Callable[[c.Granted], d.WorkRequest]
    names: Names = Names()
    messages: tuple[d.ChatMessage, ...] = ()
    ttl_s: float | None = None
    priority: int = 0
    on_progress: OnProgress | None = None

    def said_to_client(self, fault: Fault) -> Fault:
        """A refusal of this request, with the field's name as the client knows it."""
        return in_clients_words(fault, self.names, self.needs, self.messages)


class Exchange:
    """The answer to one request: iterate for its frames.

    Attributes:
        model: The one that serves.
        done: The terminal frame, once iteration has ended; :class:`TokenCount` has none.
    """

    def __init__(self, model: str, frames: FrameStream, first: d.WorkAnswer) -> None:
        self.model = model
        self.done: d.Done | None = None
        self._frames = frames
        self._first = first

    async def __aiter__(self) -> AsyncIterator[d.WorkAnswer]:
        """Frames after :class:`Accepted` and before :class:`Done`.

        Raises:
            MlxdError: The request's one terminal failure; ``worker_failed`` if the worker died.
        """
        answer = self._first
        while True:
            match answer:
                case d.Done():
                    self.done = answer
                    return
                case d.TokenCount():
                    yield answer
                    return
                case d.Fail():
                    raise MlxdError.of(answer.fault)
                case d.Accepted():
                    pass
                case _:
                    yield answer
            answer = await _receive(self._frames)


@asynccontextmanager
async def open_exchange(control: Control, call: Call, deadline_ms: int) -> AsyncIterator[Exchange]:
    """Acquire, connect and be accepted; acquires once more if the worker was draining.

    Raises:
        MlxdError: Anything that is known to be wrong before work begins.
    """
    lease = partial(
        control.lease,
        call.model,
        needs=capabilities_of(call.needs),
        deadline_ms=deadline_ms,
        ttl_s=call.ttl_s,
        priority=call.priority,
        on_progress=call.on_progress,
    )

    async def begin(stack: AsyncExitStack, granted: c.Granted) -> Exchange:
        return await _begin(stack, granted, call.make(granted))

    async with begun(lease, begin) as (_, exchange):
        yield exchange


async def _begin(stack: AsyncExitStack, granted: c.Granted, request: d.WorkRequest) -> Exchange:
    frames = await send_to_worker(stack, granted.socket, request, CLIENT)
    first = await _receive(frames)
    if isinstance(first, d.Fail):
        raise MlxdError.of(first.fault)
    return Exchange(granted.model, frames, first)


async def _receive(frames: FrameStream) -> d.WorkAnswer:
    try:
        answer: d.WorkAnswer = _answer.decode(await frames.receive())
        return answer
    except _GONE as error:
        raise MlxdError(
            Code.WORKER_FAILED,
            "the model's worker process ended before the answer was complete; "
            "ask again, the model will be loaded again",
        ) from error
