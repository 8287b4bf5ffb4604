"""Commands in, events out, effects on the world: the vocabulary of the pool.

Commands are imperative, events past tense, effects imperative. Tags are explicit and
permanent. Durable events are what the log holds; each carries its version ``v``, and a
changed meaning takes a new version and an upcaster. Volatile events evolve the live
pool only.
"""

from typing import Literal

import msgspec

from daemon.wire.errors import Fault

FailureReason = Literal["incompatible", "out_of_memory", "timeout", "crashed", "daemon_restarted"]
UnloadReason = Literal["request", "ttl", "cancelled", "shutdown", "pressure"]
LoadReason = Literal["acquire", "load", "preload", "restore", "retry"]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a model folder is, read from its files before the command was made.

    Attributes:
        key: Same real path and adapter, same key, same slot.
        weights_bytes: Sum of the tensors in the safetensors headers.
        kv_token_bytes: KV cache bytes one token of one row takes.
        identity: Changes when the files change: what was found incompatible is tried again.
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
    """

    ticket: int
    client: str
    option: Option
    rest: tuple[Option, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    lease: bool
    since_ms: int
    deadline_at_ms: int | None
    ttl_ms: int | None = None
    pin: bool = False
    over_budget: bool = False
    reason: LoadReason


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who or what asked: the first thing ``why`` tells."""

    command: str
    client: str | None = None
    pid: int | None = None


# --- commands -----------------------------------------------------------------


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of commands. ``ticket`` names who waits for the answer."""


class Acquire(Command, tag="acquire", frozen=True, kw_only=True):
    """Give a lease on the first of ``options`` that serves, loading it if need be.

    Attributes:
        options: One model, or those that an alias names, in order; never empty.
        passed_over: Options whose folders were found unusable before this command.
        ttl_ms: Idle time for this model from now on, if given.
    """

    ticket: int
    client: str
    options: tuple[Option, ...]
    passed_over: tuple[PassedOver, ...] = ()
    deadline_at_ms: int
    ttl_ms: int | None = None


class Load(Command, tag="load", frozen=True, kw_only=True):
    """Make a model resident and answer when it is."""

    ticket: int
    client: str
    options: tuple[Option, ...]
    passed_over: tuple[PassedOver, ...] = ()
    deadline_at_ms: int | None = None
    ttl_ms: int | None = None
    pin: bool = False
    over_budget: bool = False
    reason: LoadReason = "load"


class Unload(Command, tag="unload", frozen=True, kw_only=True):
    """Unload ``model``, which a person named as ``name``."""

    ticket: int
    client: str
    key: str
    name: str


class Release(Command, tag="release", frozen=True, kw_only=True):
    """Leases end: by request or with the connection that held them."""

    leases: tuple[str, ...]


class Withdraw(Command, tag="withdraw", frozen=True, kw_only=True):
    """The asker of these tickets no longer waits."""

    tickets: tuple[int, ...]


class ReportSpawned(Command, tag="report_spawned", frozen=True, kw_only=True):
    """The worker's process lives, holds its lock and answered on its socket."""

    worker: str
    pid: int
    start_time: float
    boot_id: str


class ReportProgress(Command, tag="report_progress", frozen=True, kw_only=True):
    worker: str
    done_bytes: int
    total_bytes: int


class ReportReady(Command, tag="report_ready", frozen=True, kw_only=True):
    worker: str
    measured_bytes: int
    load_ms: int
    context_tokens: int


class ReportLoadFailed(Command, tag="report_load_failed", frozen=True, kw_only=True):
    worker: str
    reason: FailureReason
    message: str


class ReportRunning(Command, tag="report_running", frozen=True, kw_only=True):
    """What the worker runs now, and the leases that its requests named."""

    worker: str
    running: int
    leases: tuple[str, ...] = ()


class ReportMeasured(Command, tag="report_measured", frozen=True, kw_only=True):
    worker: str
    measured_bytes: int


class ReportDrained(Command, tag="report_drained", frozen=True, kw_only=True):
    worker: str


class ReportStillBusy(Command, tag="report_still_busy", frozen=True, kw_only=True):
    worker: str
    running: int


class ReportExit(Command, tag="report_exit", frozen=True, kw_only=True):
    """The worker's process is gone.

    Attributes:
        exit_code: None for a worker that was adopted, or ended by a signal.
        said: Its own parting word, where it sent one.
        blameless: It ended through no fault of its model: the machine restarted.
    """

    worker: str
    blameless: bool = False
    exit_code: int | None = None
    signal: int | None = None
    said: str | None = None


class ReportAdopted(Command, tag="report_adopted", frozen=True, kw_only=True):
    """A worker of an earlier daemon was found alive and its link is up."""

    worker: str
    pid: int
    phase: Literal["waiting", "loading", "ready", "draining"]
    measured_bytes: int = 0
    context_tokens: int = 0
    running: int = 0
    leases: tuple[str, ...] = ()


class ReportUsage(Command, tag="report_usage", frozen=True, kw_only=True):
    """Finished requests of one worker's model, gathered over at most a minute."""

    worker: str
    window_ms: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    busy_ms: int
    arrivals: tuple[tuple[int, int], ...] = ()
    arrivals_dropped: int = 0


class Tick(Command, tag="tick", frozen=True, kw_only=True):
    """Time has passed: something may be due."""


class Start(Command, tag="start", frozen=True, kw_only=True):
    """This daemon begins its run, perhaps with a torn tail cut off the log."""

    pid: int
    boot_id: str
    version: str
    budget_bytes: int
    memory_total_bytes: int
    tail_lost_bytes: int = 0
    tail_kept_as: str = ""


class Stop(Command, tag="stop", frozen=True, kw_only=True):
    """No new leases; unload what is idle, and what becomes idle."""

    reason: str


class Stopped(Command, tag="stopped", frozen=True, kw_only=True):
    """The daemon is about to exit in good order."""

    reason: str


ClientCommand = Acquire | Load | Unload | Release | Withdraw
Report = (
    ReportSpawned
    | ReportProgress
    | ReportReady
    | ReportLoadFailed
    | ReportRunning
    | ReportMeasured
    | ReportDrained
    | ReportStillBusy
    | ReportExit
    | ReportAdopted
    | ReportUsage
)
AnyCommand = ClientCommand | Report | Tick | Start | Stop | Stopped


# --- durable events -------------------------------------------------------------


class Durable(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True
):
    """Base of what the log holds.

    ``model`` is the name that people use, ``key`` its identity (:class:`Model`);
    events about a slot name its ``worker``, which is unique in the whole log.
    """

    v: int = 1


class DaemonStarted(
    Durable, tag="daemon.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    generation: int
    pid: int
    boot_id: str
    version: str
    budget_bytes: int
    memory_total_bytes: int


class DaemonStopped(
    Durable, tag="daemon.stopped", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    generation: int
    reason: str


class ClockJumped(
    Durable, tag="clock.jumped", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    by_ms: int


class ConfigChanged(
    Durable, tag="config.changed", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    keys: tuple[str, ...]


class LoadStarted(
    Durable, tag="load.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The intent to load, on disk before the worker is spawned.

    Attributes:
        claim_bytes: Reserved from now on: weights + overhead + KV allowance.
        asked_by: The clients that wait for it.
    """

    model: Model
    worker: str
    claim_bytes: int
    kv_tokens: int
    rows_max: int
    reason: LoadReason
    asked_by: tuple[str, ...]
    passed_over: tuple[PassedOver, ...] = ()
    ttl_ms: int | None = None
    over_budget: bool = False


class WorkerSpawned(
    Durable, tag="worker.spawned", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    pid: int
    start_time: float
    boot_id: str


class LoadReady(Durable, tag="load.ready", frozen=True, kw_only=True, forbid_unknown_fields=True):
    worker: str
    model: str
    measured_bytes: int
    load_ms: int
    context_tokens: int


class LoadFailed(Durable, tag="load.failed", frozen=True, kw_only=True, forbid_unknown_fields=True):
    worker: str
    model: str
    reason: FailureReason
    message: str


class WorkerAdopted(
    Durable, tag="worker.adopted", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    pid: int
    measured_bytes: int
    running: int


class WorkerExited(
    Durable, tag="worker.exited", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The process is gone. Unexpected ends fail the requests that ran there."""

    worker: str
    model: str
    expected: bool
    exit_code: int | None = None
    signal: int | None = None
    said: str | None = None
    running: int = 0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was looked at when room was needed.

    Attributes:
        why_not: None for a victim that could be taken; else what protected it.
    """

    model: str
    claim_bytes: int
    last_used_at_ms: int
    why_not: str | None = None


class EvictStarted(
    Durable, tag="evict.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """Attributes: ``needed_bytes`` had to be freed for ``wanted``; ``rule`` chose."""

    worker: str
    model: str
    reason: Literal["memory", "workers_max", "pressure"]
    wanted: str
    needed_bytes: int
    rule: str
    candidates: tuple[Candidate, ...]


class EvictFinished(
    Durable, tag="evict.finished", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    freed_bytes: int


class EvictAbandoned(
    Durable, tag="evict.abandoned", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    running: int


class UnloadStarted(
    Durable, tag="unload.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    reason: UnloadReason


class UnloadFinished(
    Durable, tag="unload.finished", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    freed_bytes: int


class UnloadAbandoned(
    Durable, tag="unload.abandoned", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    running: int


class ModelPinned(
    Durable, tag="model.pinned", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    key: str
    model: str


class ModelUnpinned(
    Durable, tag="model.unpinned", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    key: str
    model: str


class ModelQuarantined(
    Durable, tag="model.quarantined", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    key: str
    model: str
    failures: int
    message: str


class ModelUnquarantined(
    Durable, tag="model.unquarantined", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    key: str
    model: str


class RequestRefused(
    Durable, tag="request.refused", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A request that memory, or a failing model, could not serve."""

    key: str
    model: str
    code: str
    client: str
    message: str
    needed_bytes: int = 0
    budget_bytes: int = 0
    count: int = 1


class ThrashNoticed(
    Durable, tag="thrash.noticed", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    key: str
    model: str
    evictions: int
    window_ms: int
    clients: tuple[str, ...]


class MemoryPressure(
    Durable, tag="memory.pressure", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    level: Literal["normal", "soft", "hard"]


class MemoryResidue(
    Durable, tag="memory.residue", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    worker: str
    model: str
    residue_bytes: int
    boot_id: str


class UsageRecorded(
    Durable, tag="usage.recorded", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """At most one a model a minute; ``arrivals`` are (offset_ms, hold_ms) pairs."""

    key: str
    model: str
    window_ms: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    busy_ms: int
    arrivals: tuple[tuple[int, int], ...] = ()
    arrivals_dropped: int = 0


class SafeModeEntered(
    Durable, tag="safe_mode.entered", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    unclean_starts: int
    quarantined: tuple[str, ...] = ()


class SafeModeLeft(
    Durable, tag="safe_mode.left", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    reason: str


class LogTailLost(
    Durable, tag="log.tail_lost", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A torn tail was cut off and kept beside the segment."""

    lost_bytes: int
    kept_as: str


DurableEvent = (
    DaemonStarted
    | DaemonStopped
    | ClockJumped
    | ConfigChanged
    | LoadStarted
    | WorkerSpawned
    | LoadReady
    | LoadFailed
    | WorkerAdopted
    | WorkerExited
    | EvictStarted
    | EvictFinished
    | EvictAbandoned
    | UnloadStarted
    | UnloadFinished
    | UnloadAbandoned
    | ModelPinned
    | ModelUnpinned
    | ModelQuarantined
    | ModelUnquarantined
    | RequestRefused
    | ThrashNoticed
    | MemoryPressure
    | MemoryResidue
    | UsageRecorded
    | SafeModeEntered
    | SafeModeLeft
    | LogTailLost
)


# --- volatile events ------------------------------------------------------------


class Volatile(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what only the live pool knows."""


class WaiterQueued(Volatile, tag="waiter.queued", frozen=True, kw_only=True):
    waiter: Waiter


class WaiterMoved(Volatile, tag="waiter.moved", frozen=True, kw_only=True):
    """The waiter goes on to the next model of its fallback chain."""

    waiter: Waiter


class WaiterLeft(Volatile, tag="waiter.left", frozen=True, kw_only=True):
    """The ticket's asker went away; nothing is owed to it."""

    ticket: int


class LeaseGranted(Volatile, tag="lease.granted", frozen=True, kw_only=True):
    ticket: int
    lease: str
    client: str
    model: str
    worker: str
    waited_ms: int
    ttl_ms: int | None = None


class LeaseEnded(Volatile, tag="lease.ended", frozen=True, kw_only=True):
    lease: str
    model: str
    how: Literal["released", "lapsed", "worker_gone"]


class LoadAnswered(Volatile, tag="load.answered", frozen=True, kw_only=True):
    """A ticket that waited for a load learns that the model is resident."""

    ticket: int
    model: str
    worker: str
    waited_ms: int
    ttl_ms: int | None = None


class UnloadAwaited(Volatile, tag="unload.awaited", frozen=True, kw_only=True):
    """``ticket`` is answered when ``worker`` is gone."""

    ticket: int
    worker: str


class UnloadAnswered(Volatile, tag="unload.answered", frozen=True, kw_only=True):
    ticket: int
    model: str
    freed_bytes: int


class TicketRefused(Volatile, tag="ticket.refused", frozen=True, kw_only=True):
    """The ticket's terminal answer is a fault."""

    ticket: int
    fault: Fault


class LoadProgressed(Volatile, tag="load.progressed", frozen=True, kw_only=True):
    worker: str
    model: str
    done_bytes: int
    total_bytes: int


class RunningChanged(Volatile, tag="running.changed", frozen=True, kw_only=True):
    worker: str
    model: str
    running: int
    leases: tuple[str, ...]


class MeasuredChanged(Volatile, tag="measured.changed", frozen=True, kw_only=True):
    worker: str
    model: str
    measured_bytes: int


class DrainConfirmed(Volatile, tag="drain.confirmed", frozen=True, kw_only=True):
    """The worker has closed admission and runs nothing: it may be stopped."""

    worker: str
    model: str


class StrayReported(Volatile, tag="stray.reported", frozen=True, kw_only=True):
    """A worker that the pool has no use for."""

    worker: str
    why: str


class StopBegan(Volatile, tag="stop.began", frozen=True, kw_only=True):
    reason: str


VolatileEvent = (
    WaiterQueued
    | WaiterMoved
    | WaiterLeft
    | LeaseGranted
    | LeaseEnded
    | LoadAnswered
    | UnloadAwaited
    | UnloadAnswered
    | TicketRefused
    | LoadProgressed
    | RunningChanged
    | MeasuredChanged
    | DrainConfirmed
    | StrayReported
    | StopBegan
)
Event = DurableEvent | VolatileEvent


# --- effects --------------------------------------------------------------------


class Effect(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what the world must do; outcomes come back only as commands."""


class SpawnWorker(Effect, tag="spawn_worker", frozen=True, kw_only=True):
    worker: str
    model: Model


class BeginLoad(Effect, tag="begin_load", frozen=True, kw_only=True):
    """``worker.spawned`` is durable: the worker may load."""

    worker: str
    model: Model
    kv_tokens: int
    rows_max: int


class DrainWorker(Effect, tag="drain_worker", frozen=True, kw_only=True):
    worker: str


class RetireWorker(Effect, tag="retire_worker", frozen=True, kw_only=True):
    worker: str
    reason: str


class AnswerGranted(Effect, tag="answer_granted", frozen=True, kw_only=True):
    ticket: int
    lease: str
    model: Model
    worker: str
    context_tokens: int
    waited_ms: int


class AnswerLoaded(Effect, tag="answer_loaded", frozen=True, kw_only=True):
    ticket: int
    model: Model
    worker: str
    waited_ms: int
    measured_bytes: int


class AnswerUnloaded(Effect, tag="answer_unloaded", frozen=True, kw_only=True):
    ticket: int
    name: str
    freed_bytes: int


class AnswerRefused(Effect, tag="answer_refused", frozen=True, kw_only=True):
    ticket: int
    fault: Fault


class AnswerProgress(Effect, tag="answer_progress", frozen=True, kw_only=True):
    """Everyone who waits for ``model`` is told how far its load is."""

    tickets: tuple[int, ...]
    name: str
    phase: Literal["queued", "loading"]
    done_bytes: int
    total_bytes: int
    eta_ms: int | None


AnyEffect = (
    SpawnWorker
    | BeginLoad
    | DrainWorker
    | RetireWorker
    | AnswerGranted
    | AnswerLoaded
    | AnswerUnloaded
    | AnswerRefused
    | AnswerProgress
)


class Decision(msgspec.Struct, frozen=True):
    """What a command makes true, in order. Empty changes nothing."""

    events: tuple[Event, ...] = ()
