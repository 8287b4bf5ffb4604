"""What stands between a protocol and a worker: the plan of a request, the reply to it.

A protocol file turns a body into a :class:`Plan`, and frames of a worker into bytes through
its :class:`Reply`; both without I/O. ``serving`` joins them and knows no protocol.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.naming import Names, Need, in_clients_words

Priority = Literal["low", "normal", "high"] | Annotated[int, Meta(ge=-10, le=10)]
PRIORITIES: Final = {"low": -5, "normal": 0, "high": 5}

_SEEDS: Final = 1 << 63


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request for text.

    Attributes:
        model: As the caller named it; the daemon looks it up.
        needs: What the model must be able to do; the first that it cannot is refused.
        generate: The worker's request, its lease still empty.
        names: What the client calls the fields of that request.
        stream: Whether the answer is streamed.
        ttl_s: Idle seconds after which the model may be unloaded; None leaves it as it is.
        priority: Before (above 0) or after (below 0) others that wait for a load.
        choices: How many answers; all of them under one lease.
    """

    model: str
    needs: tuple[Need, ...]
    generate: d.Generate
    names: Names = Names()
    stream: bool = False
    ttl_s: float | None = None
    priority: int = 0
    choices: int = 1

    def for_lease(self, granted: c.Granted, choice: int = 0) -> d.Generate:
        """The request for one choice, as the worker of a granted lease takes it.

        With a seed, choice n is drawn with seed + n, so that the whole answer can be repeated.
        """
        sampling = self.generate.sampling
        if choice and sampling.seed is not None:
            seed = (sampling.seed + choice) % _SEEDS
            sampling = msgspec.structs.replace(sampling, seed=seed)
        return msgspec.structs.replace(self.generate, lease=granted.lease, sampling=sampling)

    def said_to_client(self, fault: Fault) -> Fault:
        """A refusal of this request, with the field's name as the client knows it."""
        return in_clients_words(fault, self.names, self.needs, self.generate.messages or ())


class Answer(msgspec.Struct, frozen=True):
    """Everything that a worker said for one choice."""

    deltas: Sequence[d.Delta]
    done: d.Done

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.reasoning for delta in self.deltas)

    @property
    def tool_calls(self) -> list[d.ToolCall]:
        return [call for delta in self.deltas for call in delta.tool_calls]

    @property
    def logprobs(self) -> list[d.TokenLogprob]:
        return [token for delta in self.deltas for token in delta.logprobs]


def total_usage(usages: Sequence[d.Usage]) -> d.Usage:
    """What several choices of one prompt cost: the prompt counts once."""
    return msgspec.structs.replace(
        usages[0],
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )


class Reply(Protocol):
    """One answer in one protocol's words; called in the order of the methods."""

    def waiting(self, note: str) -> bytes:
        """What keeps a stream alive while nothing else can be said."""

    def begin(self, model: str, prompt_tokens: int) -> bytes:
        """Events that open a stream; ``model`` is the one that serves."""

    def delta(self, delta: d.Delta, choice: int = 0) -> bytes:
        """Events for one decode step; empty if it shows nothing."""

    def end(self, done: d.Done, choice: int = 0) -> bytes:
        """Events that end a choice, and with the last one the stream."""

    def failure(self, fault: Fault) -> bytes:
        """The event that closes a stream which has failed."""

    def whole(self, model: str, answers: Sequence[Answer]) -> bytes:
        """The body of an answer that is not streamed."""
