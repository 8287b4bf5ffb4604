"""What the socket thread tells the main thread, and back.

Both directions are values: the socket thread puts messages into one queue, and takes
:class:`Post` from the main thread, one a step. Neither thread touches the other's state.
"""

import queue
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from daemon.wire.data import Hosting, LinkCommand, LinkReport, WorkAnswer, WorkRequest
from daemon.wire.errors import Fault


class Submit(msgspec.Struct, frozen=True):
    """A client's request, numbered by the socket thread."""

    request_id: int
    request: WorkRequest


class Cancel(msgspec.Struct, frozen=True):
    """The client went away, or its stream lagged; an unknown id is fine."""

    request_id: int


class Prepared(msgspec.Struct, frozen=True):
    """Work ahead of the model is done: the request as it is now, or why it failed."""

    request_id: int
    outcome: WorkRequest | Fault


class LinkUp(msgspec.Struct, frozen=True):
    """A daemon holds the link."""


class LinkDown(msgspec.Struct, frozen=True):
    """No daemon holds the link any more."""


class Command(msgspec.Struct, frozen=True):
    """What the daemon asks over the link."""

    command: LinkCommand


class Terminate(msgspec.Struct, frozen=True):
    """SIGTERM: retire at once."""


Message = Submit | Cancel | Prepared | LinkUp | LinkDown | Command | Terminate


class Post(msgspec.Struct, frozen=True):
    """What one step of the main thread gave: handed over in one go.

    Attributes:
        frames: Request id and frame, in order.
        reports: For the link, if there is one.
        hosting: What a new link is told from now on; None if that did not change.
    """

    frames: tuple[tuple[int, WorkAnswer], ...] = ()
    reports: tuple[LinkReport, ...] = ()
    hosting: Hosting | None = None


class Outlet(Protocol):
    """The main thread's way to the sockets."""

    def post(self, post: Post) -> None:
        """Hand over; never blocks."""
        ...


class Inbox:
    """Messages for the main thread.

    The queue has no bound of its own: the socket thread admits a bounded number of
    requests and connections, and each of those puts in a bounded number of messages.
    ``put`` is reentrant (queue.SimpleQueue), so a signal handler may use it.
    """

    def __init__(self) -> None:
        self._queue: Final = queue.SimpleQueue[Message]()
        self.put: Final[Callable[[Message], None]] = self._queue.put

    def next(self, timeout_s: float | None) -> Message | None:
        """Wait for a message; None once ``timeout_s`` has passed (None waits for ever)."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def next_nowait(self) -> Message | None:
        """A message if one is there."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None
