"""What commands, events and effects speak of: models, terms, who waits and why."""

from typing import Final, Literal

import msgspec

PRIORITY_STEP_MS: Final = 3_000
"""Each point of priority counts as having waited so much longer."""

FailureReason = Literal["incompatible", "out_of_memory", "timeout", "crashed", "daemon_restarted"]
UnloadReason = Literal["request", "ttl", "cancelled", "shutdown", "pressure"]
EvictReason = Literal["memory", "workers_max", "pressure", "request"]
LoadReason = Literal["acquire", "load", "preload", "restore", "retry"]
PressureLevel = Literal["normal", "soft", "hard"]
AskedIdle = int | Literal["never"] | None
"""Idle milliseconds before a model is unloaded, as somebody asks; None asks for nothing."""


def idle_ms(asked: int | Literal["never"]) -> int | None:
    """The time that was asked for; None keeps the model."""
    return None if asked == "never" else asked


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration allows.

    Attributes:
        budget_bytes: All claims together stay within it, but for ``over_budget`` loads.
        workers_max: Most models at once; None is no bound of its own.
        loads_max: Most loads at once; those that nobody waits for come on top.
        queue_max: Most requests waiting.
        kv_tokens: KV allowance of one model, in tokens, all its rows together.
        ttl_ms: Idle time before a model is unloaded; None keeps it.
        load_stall_ms: A load without progress for so long has failed.
        crashes_max: Crashes within ``crash_window_ms`` that quarantine a model.
        unclean_starts_max: Runs in a row that ended early and badly before safe mode.
        spare: Whether a process with the libraries imported waits for the next load.
    """

    budget_bytes: int
    workers_max: int | None = None
    loads_max: int = 1
    queue_max: int = 256
    kv_tokens: int = 16_384
    ttl_ms: int | None = None
    load_stall_ms: int = 120_000
    crashes_max: int = 5
    crash_window_ms: int = 600_000
    unclean_starts_max: int = 3
    spare: bool = False


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a model folder is, read from its files before the command was made.

    Attributes:
        key: Same real path and adapter, same key, same slot.
        weights_bytes: Sum of the tensors in the safetensors headers.
        kv_token_bytes: KV cache bytes one token of one row takes.
        identity: Changes when the files change: what was found incompatible is tried again.
        allow_code: The configuration lets the folder's own Python files run, for this model.
        draft: The folder of a smaller model that guesses for it, ``draft_tokens`` at a time;
            its weights and cache are counted in those of this one.
    """

    key: str
    name: str
    path: str
    kind: str
    capabilities: tuple[str, ...]
    weights_bytes: int
    kv_token_bytes: int
    context_tokens: int
    adapter: str | None = None
    identity: str = ""
    allow_code: bool = False
    draft: str | None = None
    draft_tokens: int = 3


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the configuration says of one model, as it was when the command was made."""

    ttl_ms: int | None = None
    pin: bool = False
    rows_max: int = 16


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One model that may serve a request, with what the configuration says of it."""

    model: Model
    terms: Terms = Terms()


class PassedOver(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a fallback chain that did not serve, and why."""

    model: str
    why: str


class Waiter(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits, for a lease or (``lease`` false) for a load to end.

    Attributes:
        rest: What the fallback chain names after ``option``.
        deadline_at_ms: None waits as long as its asker does.
        priority: Its place in the queue: see :attr:`turn_ms`.
        retried: Its load ran out of memory once, and is tried again.
        room_awaited: It was said that its load waits for workers that stop.
    """

    ticket: int
    client: str
    option: Option
    rest: tuple[Option, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    lease: bool
    since_ms: int
    deadline_at_ms: int | None
    ttl_ms: AskedIdle = None
    priority: int = 0
    pin: bool = False
    over_budget: bool = False
    reason: LoadReason
    retried: bool = False
    room_awaited: bool = False

    @property
    def turn_ms(self) -> int:
        """Who has the least is next. It never changes by waiting, so that whoever came long
        enough before anybody else is before them, whatever their priorities.
        """
        return self.since_ms - self.priority * PRIORITY_STEP_MS


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A model to load when nobody waits and there is room: preload and restore.

    Attributes:
        used_at_ms: Its last use before; its idle time counts from then.
    """

    option: Option
    reason: LoadReason
    ttl_ms: AskedIdle = None
    used_at_ms: int | None = None


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests waited for their model, and how long."""

    requests: int = 0
    total_ms: int = 0
    longest_ms: int = 0

    def and_one(self, wait_ms: int) -> "Waits":
        """These, and one more of ``wait_ms``."""
        return self.and_those(Waits(requests=1, total_ms=wait_ms, longest_ms=wait_ms))

    def and_those(self, others: "Waits") -> "Waits":
        """These and ``others``."""
        return Waits(
            requests=self.requests + others.requests,
            total_ms=self.total_ms + others.total_ms,
            longest_ms=max(self.longest_ms, others.longest_ms),
        )


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was looked at when room was needed.

    Attributes:
        why_not: None for a victim that could be taken; else what protected it.
    """

    model: str
    claim_bytes: int
    last_used_at_ms: int
    why_not: str | None = None


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who or what asked: the first thing ``why`` tells."""

    command: str
    client: str | None = None
    pid: int | None = None
