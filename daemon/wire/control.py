"""Messages of the control socket: ``run/mlxd.sock``.

A connection begins with :class:`Hello` and its :class:`Welcome`. After that the client
sends requests, each with an ``id`` of its own choosing, many in flight; every answer
names the id. ``load`` and ``acquire`` may be answered by several :class:`Progress`
before their one terminal answer; ``watch`` is answered by records until it is
cancelled. Unknown fields are ignored, so that a newer peer can say more.
"""

from typing import Final, Literal

import msgspec

from daemon.wire.errors import Fault

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1

REQUESTS_MAX: Final = 1024
"""Requests in flight on one connection; more than the queue of a pool usually takes."""

PRIORITY_MAX: Final = 10
"""Priorities of requests are -10 to 10."""

ModelState = Literal["loading", "idle", "busy", "draining", "stopping"]
Ttl = float | Literal["never"] | None
"""Idle seconds before a model may be unloaded; None takes the configured time."""

Role = Literal["client", "daemon"]
Fit = Literal["now", "after_evicting", "after_waiting", "never"]
"""Whether there is room for a model: at once, by evicting what nobody uses, when what is in
use has ended, or never as things are configured."""


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of every message on either kind of socket."""


class Hello(Frame, tag="hello", frozen=True, kw_only=True):
    """First frame of a connection, from whoever dialled."""

    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    role: Role = "client"
    client: str
    pid: int
    generation: int = 0
    """A daemon's generation number; workers refuse an older one."""


class Welcome(Frame, tag="welcome", frozen=True, kw_only=True):
    """The answer to :class:`Hello`: the version chosen and who answers."""

    protocol: int
    server: str
    pid: int
    version: str


class Refusal(Frame, tag="refusal", frozen=True, kw_only=True):
    """Ends a connection that could not be understood."""

    fault: Fault


# --- requests ---------------------------------------------------------------


class Request(Frame, frozen=True, kw_only=True):
    """A request; ``id`` is unique among the connection's requests in flight."""

    id: int


class GetStatus(Request, tag="status", frozen=True, kw_only=True):
    """Answered by :class:`StatusView`."""


class ListModels(Request, tag="models", frozen=True, kw_only=True):
    """Answered by :class:`ModelsView`: what could be loaded, resident or not."""


class LoadModel(Request, tag="load", frozen=True, kw_only=True):
    """Load a model; answered by :class:`Progress` … then :class:`Loaded`.

    Attributes:
        model: A configured id, an alias, or a bundled or cached model's name.
        path: An absolute model folder, registered under the name ``model``.
        ttl_s: Idle seconds before it may be unloaded, or "never"; None takes the configured
            one.
        pin: Never evict, never expire.
        over_budget: Load even if the arithmetic says no; recorded.
        deadline_ms: How long to wait for memory and for the load; None waits for both.
    """

    model: str
    path: str | None = None
    ttl_s: Ttl = None
    pin: bool = False
    over_budget: bool = False
    deadline_ms: int | None = None


class EstimateLoad(Request, tag="estimate", frozen=True, kw_only=True):
    """What :class:`LoadModel` would come to; nothing changes. Answered by :class:`LoadEstimate`."""

    model: str
    path: str | None = None
    over_budget: bool = False


class UnloadModel(Request, tag="unload", frozen=True, kw_only=True):
    """Unload when idle; ``conflict`` while in use. Answered by :class:`Unloaded`."""

    model: str


class AcquireLease(Request, tag="acquire", frozen=True, kw_only=True):
    """Ask for the use of a model; answered by :class:`Progress` … then :class:`Granted`.

    Attributes:
        needs: Capabilities that the model must have ("text", "vision", …), before anything is
            loaded; a refusal names the first that it lacks as the field ``needs[i]``.
        deadline_ms: How long to wait for room and for a load before ``deadline``.
        ttl_s: Idle time for this model from now on; None leaves it as it is.
        priority: -10 to 10. Who waits for a load stands in the queue as if they had come
            3 s earlier a point, so that nobody waits for ever.
    """

    model: str
    needs: tuple[str, ...] = ()
    deadline_ms: int = 120_000
    ttl_s: Ttl = None
    priority: int = 0


class EvictModel(Request, tag="evict", frozen=True, kw_only=True):
    """As unload, but as the policy would: ``conflict`` if pinned. Answered :class:`Unloaded`."""

    model: str


class PinModel(Request, tag="pin", frozen=True, kw_only=True):
    """Never evict, never expire; it need not be resident. Answered by :class:`Ok`."""

    model: str


class UnpinModel(Request, tag="unpin", frozen=True, kw_only=True):
    """Answered by :class:`Ok`."""

    model: str


class SetTtl(Request, tag="ttl", frozen=True, kw_only=True):
    """Unload a resident model after ``ttl_s`` without use; None keeps it. :class:`Ok`."""

    model: str
    ttl_s: float | None


class UnquarantineModel(Request, tag="unquarantine", frozen=True, kw_only=True):
    """Let a model that crashed too often be tried again. Answered by :class:`Ok`."""

    model: str


class ClearSafeMode(Request, tag="clear_safe_mode", frozen=True, kw_only=True):
    """Answered by :class:`Ok`."""


class ReloadConfig(Request, tag="reload_config", frozen=True, kw_only=True):
    """Read config.toml again and apply what changed. Answered by :class:`ConfigReloaded`.

    A file with a mistake changes nothing: ``invalid_request`` says where it is.
    """


class DetachDaemon(Request, tag="detach", frozen=True, kw_only=True):
    """End the daemon and leave its workers for the next one to adopt. :class:`Ok` first."""


class ReleaseLease(Request, tag="release", frozen=True, kw_only=True):
    """Give a lease back; answered by :class:`Released`. Unknown leases are fine."""

    lease: str


class WatchEvents(Request, tag="watch", frozen=True, kw_only=True):
    """Records of the event log as they become durable.

    Attributes:
        after: Records with a greater seq are sent first, from the log; None begins
            with what comes next.
        follow: False ends with :class:`WatchEnded` when the log's end is reached.
    """

    after: int | None = None
    follow: bool = True


class CancelRequest(Request, tag="cancel", frozen=True, kw_only=True):
    """Withdraw the request ``target``; that one is answered ``cancelled``."""

    target: int


ControlRequest = (
    GetStatus
    | ListModels
    | LoadModel
    | EstimateLoad
    | UnloadModel
    | EvictModel
    | PinModel
    | UnpinModel
    | SetTtl
    | UnquarantineModel
    | ClearSafeMode
    | ReloadConfig
    | DetachDaemon
    | AcquireLease
    | ReleaseLease
    | WatchEvents
    | CancelRequest
)


# --- answers ----------------------------------------------------------------


class Answer(Frame, frozen=True, kw_only=True):
    """An answer to the request ``id``."""

    id: int


class Failed(Answer, tag="failed", frozen=True, kw_only=True):
    """The terminal answer of a request that did not succeed."""

    fault: Fault


class Progress(Answer, tag="progress", frozen=True, kw_only=True):
    """A load that a request waits for.

    Attributes:
        phase: "queued" for memory or another load, then "loading".
        done_bytes: Weights read so far, of ``total_bytes``.
        eta_ms: From learned load times; None when never loaded before.
    """

    model: str
    phase: Literal["queued", "loading"]
    done_bytes: int = 0
    total_bytes: int = 0
    eta_ms: int | None = None


class Loaded(Answer, tag="loaded", frozen=True, kw_only=True):
    model: str
    worker: str
    load_ms: int
    """0 when it was resident already."""
    measured_bytes: int


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory, seen as one that could make room.

    Attributes:
        why_not: What protects it; None if nothing does.
        goes: It is among those that would be evicted.
    """

    model: str
    claim_bytes: int
    last_used_at_ms: int
    why_not: str | None = None
    goes: bool = False


class LoadEstimate(Answer, tag="estimated", frozen=True, kw_only=True):
    """What a load would come to now, and the arithmetic.

    Attributes:
        verdict: "resident" or "loading" already; "loads" at once; "evicts" others first;
            "waits" for what ``reason`` says; "refused" for what ``fault`` says.
        draft: The folder of the model that guesses for it; its weights and its cache are in
            these figures.
        claim_bytes: Weights, KV cache and overhead together: what is reserved.
        kv_bytes: ``kv_tokens`` times ``kv_token_bytes``.
        measured_bytes: What it held when it was last loaded; it counts where it is more.
        budget_bytes: For all models, ``residue_bytes`` less: memory that ended workers
            still hold.
        needed_bytes: What has to be freed first, chosen by ``rule``.
        load_ms: Of its last load, or a guess if ``learned`` is false.
        over_budget: It would be loaded although it does not fit, as asked.
        passed_over: Of an alias: models that would not serve, and why.
    """

    model: str
    verdict: Literal["resident", "loading", "loads", "evicts", "waits", "refused"]
    weights_bytes: int
    overhead_bytes: int
    kv_tokens: int
    kv_token_bytes: int
    kv_bytes: int
    claim_bytes: int
    measured_bytes: int | None
    budget_bytes: int
    residue_bytes: int
    committed_bytes: int
    needed_bytes: int
    rule: str
    considered: tuple[Considered, ...]
    load_ms: int
    learned: bool
    over_budget: bool
    passed_over: tuple[str, ...]
    reason: str
    fault: Fault | None
    now_ms: int
    draft: str | None = None


class Unloaded(Answer, tag="unloaded", frozen=True, kw_only=True):
    model: str
    freed_bytes: int


class Granted(Answer, tag="granted", frozen=True, kw_only=True):
    """A lease: speak to the worker at ``socket`` and name the lease there.

    Attributes:
        lease: Ends with :class:`ReleaseLease` or with this connection.
        capabilities: What the model can do, from its files.
        load_ms: How long this request waited for a load; 0 if resident.
    """

    lease: str
    model: str
    worker: str
    socket: str
    kind: str
    capabilities: tuple[str, ...]
    context_tokens: int
    load_ms: int = 0


class Released(Answer, tag="released", frozen=True, kw_only=True):
    lease: str


class Ok(Answer, tag="ok", frozen=True, kw_only=True):
    """Done, and durable; ``already``: said of an unquarantine that had nothing to do."""

    already: bool = False


class ConfigReloaded(Answer, tag="config_reloaded", frozen=True, kw_only=True):
    """What changed, as key paths; some take effect only later, as ``notes`` say."""

    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Cancelled(Answer, tag="cancel_done", frozen=True, kw_only=True):
    target: int


class LogRecord(Answer, tag="record", frozen=True, kw_only=True):
    """One durable record: the exact JSON line of the log, without its newline."""

    seq: int
    line: str


class WatchStarted(Answer, tag="watching", frozen=True, kw_only=True):
    """The pool as it was when the watch began; every record after ``seq`` follows."""

    seq: int
    status: "StatusView"


class WatchEnded(Answer, tag="watch_ended", frozen=True, kw_only=True):
    """The watch is over: ``end`` of the log without follow, ``cancelled`` or ``lagged``."""

    reason: Literal["end", "cancelled", "lagged"]
    seq: int


class ResidentModel(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of the pool, as people see it."""

    name: str
    path: str
    kind: str
    capabilities: tuple[str, ...]
    state: ModelState
    worker: str
    pid: int | None
    claim_bytes: int
    measured_bytes: int
    context_tokens: int
    leases: int
    running: int
    progress: float
    """Of the load, 0 to 1."""
    pinned: bool
    loaded_at_ms: int | None
    last_used_at_ms: int | None
    expires_at_ms: int | None
    tokens_per_s: float = 0.0
    """Completion tokens, over the last ten seconds in which it wrote any."""


class QueuedRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    client: str
    since_ms: int
    deadline_at_ms: int | None
    priority: int = 0


class StatusView(Answer, tag="status_is", frozen=True, kw_only=True):
    """The pool now."""

    version: str
    pid: int
    generation: int
    started_at_ms: int
    now_ms: int
    seq: int
    budget_bytes: int
    committed_bytes: int
    """All claims, and the spare."""
    spare_bytes: int = 0
    """What the process takes that waits for the next load; no load is refused for it."""
    memory_total_bytes: int
    rss_bytes: int
    home: str
    read_only: bool
    stopping: bool = False
    pressure: Literal["none", "soft", "hard"] = "none"
    """How short of memory the machine is: soft loads nothing new, hard evicts idle models."""
    safe_mode: bool = False
    """After unclean starts: nothing is preloaded or restored."""
    warnings: tuple[str, ...]
    models: tuple[ResidentModel, ...]
    queue: tuple[QueuedRequest, ...]


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that could be loaded by name."""

    name: str
    path: str
    source: Literal["configured", "bundled", "cache", "loaded", "alias"]
    kind: str | None
    capabilities: tuple[str, ...]
    weights_bytes: int
    context_tokens: int
    state: ModelState | None
    created_at_ms: int
    problem: str | None = None
    """Why it cannot be loaded, where its files already say so."""
    targets: tuple[str, ...] = ()
    """For an alias: the models that it names, in order."""
    quantization: str | None = None
    """How the weights are stored: "4-bit", "mxfp4", else their type, such as "bf16"."""
    claim_bytes: int | None = None
    """What it would take of the budget, for one that is not in memory."""
    fits: Fit | None = None
    """None for a model that is in memory, or that cannot be loaded."""
    fit_note: str | None = None
    """Why it does not fit now: the arithmetic, or who would have to go."""


class ModelsView(Answer, tag="models_are", frozen=True, kw_only=True):
    models: tuple[KnownModel, ...]


ControlAnswer = (
    Failed
    | Progress
    | Loaded
    | LoadEstimate
    | Unloaded
    | Granted
    | Released
    | Ok
    | ConfigReloaded
    | Cancelled
    | LogRecord
    | WatchStarted
    | WatchEnded
    | StatusView
    | ModelsView
)
