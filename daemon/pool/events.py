"""Events: what became true. Durable ones are what the log holds, volatile ones are not.

Tags are explicit and permanent. Each durable event carries its version ``v``; a changed
meaning takes a new version and an upcaster.
"""

from typing import Literal

import msgspec

from daemon.pool.shapes import (
    AskedIdle,
    Candidate,
    EvictReason,
    FailureReason,
    Limits,
    LoadReason,
    Model,
    PassedOver,
    PressureLevel,
    UnloadReason,
    Waiter,
    Waits,
    Wish,
)
from daemon.wire.errors import Fault


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
    limits: Limits | None = None


class DaemonSettled(
    Durable, tag="daemon.settled", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """This run has lasted long enough not to count as a failed start."""

    generation: int


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
    limits: Limits | None = None


class LoadStarted(
    Durable, tag="load.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The intent to load, on disk before the worker is spawned.

    Attributes:
        claim_bytes: Reserved from now on: weights + overhead + KV allowance.
        asked_by: The clients that wait for it.
        used_at_ms: For a model that is restored: its last use before.
        ttl_asked: ``ttl_ms`` is what a person asked for, not what is configured.
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
    used_at_ms: int | None = None
    ttl_asked: bool = False


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


class EvictStarted(
    Durable, tag="evict.started", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The worker was asked to make room.

    Attributes:
        wanted: The model that needs the room; empty if no model does.
        needed_bytes: What had to be freed; 0 if memory is not what is short.
        rule: What chose this model of the candidates.
        for_clients: Who waits for ``wanted``.
    """

    worker: str
    model: str
    reason: EvictReason
    wanted: str
    needed_bytes: int
    rule: str
    candidates: tuple[Candidate, ...]
    for_clients: tuple[str, ...] = ()


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


class ModelTtlChanged(
    Durable, tag="model.ttl_changed", frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """By command; what single requests ask for is not recorded."""

    key: str
    model: str
    ttl_ms: int | None


class ModelKept(Durable, tag="model.kept", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person asked for a model that somebody else had loaded: it comes back like theirs."""

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
    """Attributes: ``trimmed`` are the models that were told to drop their caches."""

    level: PressureLevel
    trimmed: tuple[str, ...] = ()


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
    """At most one a model a minute; ``arrivals`` are (offset_ms, hold_ms) pairs.

    Attributes:
        waits: Of requests for their lease; None where an older daemon did not count them.
    """

    key: str
    model: str
    window_ms: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    busy_ms: int
    arrivals: tuple[tuple[int, int], ...] = ()
    arrivals_dropped: int = 0
    waits: Waits | None = None


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


SlotEvent = (
    LoadStarted
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
    | UsageRecorded
)
ModelEvent = (
    ModelPinned
    | ModelUnpinned
    | ModelTtlChanged
    | ModelKept
    | ModelQuarantined
    | ModelUnquarantined
    | RequestRefused
    | ThrashNoticed
)
DaemonEvent = (
    DaemonStarted
    | DaemonSettled
    | DaemonStopped
    | ClockJumped
    | ConfigChanged
    | MemoryPressure
    | MemoryResidue
    | SafeModeEntered
    | SafeModeLeft
    | LogTailLost
)
DurableEvent = SlotEvent | ModelEvent | DaemonEvent


class Volatile(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what only the live pool knows."""


class WaiterQueued(Volatile, tag="waiter.queued", frozen=True, kw_only=True):
    waiter: Waiter


class WaiterMoved(Volatile, tag="waiter.moved", frozen=True, kw_only=True):
    """The waiter goes on to the next model of its fallback chain."""

    waiter: Waiter


class RoomAwaited(Volatile, tag="room.awaited", frozen=True, kw_only=True):
    """A load has begun to wait for workers that stop; said once a load."""

    ticket: int
    model: Model


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
    ttl_ms: AskedIdle = None


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


class UnloadAwaited(Volatile, tag="unload.awaited", frozen=True, kw_only=True):
    """``ticket`` is answered when ``worker`` is gone."""

    ticket: int
    worker: str


class TicketDone(Volatile, tag="ticket.done", frozen=True, kw_only=True):
    """What the ticket asked for is so; ``already``: it was before, and nothing changed."""

    ticket: int
    already: bool = False


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


class SpeedChanged(Volatile, tag="speed.changed", frozen=True, kw_only=True):
    worker: str
    model: str
    tokens_per_s: float


class DrainConfirmed(Volatile, tag="drain.confirmed", frozen=True, kw_only=True):
    """The worker may be stopped.

    Attributes:
        how: It has closed admission and runs nothing; or it is about to end by itself; or
            it has not answered for so long that it must hang.
    """

    worker: str
    model: str
    how: Literal["drained", "retiring", "unresponsive"] = "drained"


class StrayReported(Volatile, tag="stray.reported", frozen=True, kw_only=True):
    """A worker that the pool has no use for."""

    worker: str
    why: str


class StopBegan(Volatile, tag="stop.began", frozen=True, kw_only=True):
    """Attributes: with ``detach`` the workers stay."""

    reason: str
    detach: bool = False


class PressureReported(Volatile, tag="pressure.reported", frozen=True, kw_only=True):
    """What the system says; relief counts only once it has lasted."""

    level: PressureLevel


class RefusalCounted(Volatile, tag="refusal.counted", frozen=True, kw_only=True):
    """A refusal like one recorded within the last minute: its count is recorded later."""

    refused: RequestRefused


class WishesAdded(Volatile, tag="wishes.added", frozen=True, kw_only=True):
    wishes: tuple[Wish, ...]


class WishDropped(Volatile, tag="wish.dropped", frozen=True, kw_only=True):
    key: str
    model: str
    why: str


class SpareStarted(Volatile, tag="spare.started", frozen=True, kw_only=True):
    """A process imports the libraries, for the next load to take."""

    spare: str


class SpareEnded(Volatile, tag="spare.ended", frozen=True, kw_only=True):
    """It is not wanted any more, or has ended by itself.

    Attributes:
        why: How it ended by itself; "" if it is told to.
        retry_at_ms: No other is started before then.
    """

    spare: str
    why: str = ""
    retry_at_ms: int = 0


class LogBlocked(Volatile, tag="log.blocked", frozen=True, kw_only=True):
    """Nothing more is decided that would have to be recorded."""

    reason: str


class LogWritable(Volatile, tag="log.writable", frozen=True, kw_only=True):
    """The log takes records again."""


QueueEvent = (
    WaiterQueued
    | WaiterMoved
    | RoomAwaited
    | WaiterLeft
    | LoadAnswered
    | UnloadAwaited
    | UnloadAnswered
    | TicketDone
    | TicketRefused
    | RefusalCounted
    | WishesAdded
    | WishDropped
)
UseEvent = (
    LeaseGranted
    | LeaseEnded
    | LoadProgressed
    | RunningChanged
    | MeasuredChanged
    | SpeedChanged
    | DrainConfirmed
    | StrayReported
)
ConditionEvent = StopBegan | PressureReported | SpareStarted | SpareEnded | LogBlocked | LogWritable
VolatileEvent = QueueEvent | UseEvent | ConditionEvent
Event = DurableEvent | VolatileEvent


class Decision(msgspec.Struct, frozen=True):
    """What a command makes true, in order. Empty changes nothing."""

    events: tuple[Event, ...] = ()
