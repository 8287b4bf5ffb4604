"""What stands between a protocol and a worker: the plan of a request, the reply to it.

A protocol file turns a body into a :class:`Plan`, and frames of a worker into bytes through
its :class:`Reply`; both without I/O. ``serving`` joins them and knows no protocol.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Fault


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request.

    Attributes:
        model: As the caller named it; the daemon looks it up.
        needs: Capabilities that the model must have.
        generate: The worker's request, its lease still empty.
        stream: Whether the answer is streamed.
        ttl_s: Idle seconds after which the model may be unloaded; None leaves it as it is.
    """

    model: str
    needs: tuple[str, ...]
    generate: d.Generate
    stream: bool = False
    ttl_s: float | None = None

    def for_lease(self, granted: c.Granted) -> d.Generate:
        """The request as the worker of a granted lease takes it."""
        return msgspec.structs.replace(self.generate, lease=granted.lease)


class Reply(Protocol):
    """One answer in one protocol's words; called in the order of the methods."""

    def begin(self, model: str) -> bytes:
        """Events that open a stream; ``model`` is the one that serves."""

    def delta(self, delta: d.Delta) -> bytes:
        """Events for one decode step; empty if it shows nothing."""

    def end(self, done: d.Done) -> bytes:
        """Events that close a stream."""

    def failure(self, fault: Fault) -> bytes:
        """The event that closes a stream which has failed."""

    def whole(self, model: str, deltas: Sequence[d.Delta], done: d.Done) -> bytes:
        """The body of an answer that is not streamed."""
