"""What is true of the pool: one frozen Struct a state, holding only the facts true in it."""

from typing import Final, Literal

import msgspec

from daemon.pool.messages import (
    AskedIdle,
    EvictReason,
    FailureReason,
    LoadReason,
    Model,
    PressureLevel,
    RequestRefused,
    UnloadReason,
    Waiter,
    Waits,
    Wish,
)
from daemon.pool.messages import Limits as Limits  # noqa: PLC0414 - where the daemon's start looks for it

MIN_RESIDENCY_MS: Final = 10_000
"""A model loaded for less is no victim, unless the queue's head waited as long."""

LEASE_LAPSE_MS: Final = 30_000
"""A lease that no request has named by then ends."""

DRAIN_STALL_MS: Final = 120_000
"""A worker that has not said within this whether it can be stopped hangs."""

SETTLED_MS: Final = 120_000
"""A run of the daemon that lasted so long was no failed start."""

SAFE_MODE_MS: Final = 600_000
TRIM_MS: Final = 7_000
"""Dropped caches may be all that was missing: the machine is looked at once more before idle
models go."""

PRESSURE_HOLD_MS: Final = 10_000
"""Relief counts once it has lasted so long, so that loads do not come and go with it."""

REFUSALS_EVERY_MS: Final = 60_000
THRASH_EVICTIONS: Final = 3
THRASH_WINDOW_MS: Final = 600_000
CRASHES_KEPT: Final = 64
"""More crashes than this in a window are not told apart; also the most that count."""


STATE_VERSION: Final = 7
"""Of the pool as it stands in snapshots; raised with any change of its shape or of
``evolve``. Snapshots of another version are ignored, and the log replayed instead."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker's process is known to the system; start time guards against pid reuse."""

    pid: int
    start_time: float
    boot_id: str


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """What stays true of a slot from its load's start to its end.

    Attributes:
        reserved_bytes: Weights + overhead + KV allowance, as planned before the load.
        measured_bytes: As last reported by the worker; 0 before it is ready.
        ttl_ms: As configured, or as set by command (``ttl_asked``).
        asked_by: The clients that its load was for.
        used_at_ms: A restored model's last use before it was loaded again.
        kept: Belongs to the pool as people made it: comes back after a restart or crash.
        waits: Of requests for their lease, since usage was last recorded.
        tokens_per_s: How fast it wrote over the last seconds in which it did.
    """

    model: Model
    worker: str
    reserved_bytes: int
    measured_bytes: int = 0
    kv_tokens: int
    rows_max: int
    ttl_ms: int | None
    over_budget: bool
    asked_by: tuple[str, ...] = ()
    used_at_ms: int | None = None
    ttl_asked: bool = False
    kept: bool = False
    waits: Waits = Waits()
    tokens_per_s: float = 0.0
    process: Process | None = None

    @property
    def claim_bytes(self) -> int:
        """What the budget counts: never less than what was measured."""
        return max(self.reserved_bytes, self.measured_bytes)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a model that has been loaded.

    Attributes:
        last_used_at_ms: As this daemon saw it.
        recorded_use_at_ms: As the log knows it.
        ttl_asked_ms: Idle time that the last request to name one asked for.
    """

    context_tokens: int
    loaded_at_ms: int
    last_used_at_ms: int
    recorded_use_at_ms: int
    ttl_asked_ms: AskedIdle = None


class Loading(msgspec.Struct, tag="loading", frozen=True, kw_only=True):
    """Its memory is reserved; its worker is being started or reads weights.

    Attributes:
        inherited: An earlier daemon began it, and its worker has not been heard since: it
            may be ready and serve by now, so it is not cancelled before it is adopted.
    """

    tenant: Tenant
    reason: LoadReason
    since_ms: int
    progress_at_ms: int
    done_bytes: int = 0
    inherited: bool = False


class Idle(msgspec.Struct, tag="idle", frozen=True, kw_only=True):
    """Resident, unused: may be evicted if unpinned."""

    tenant: Tenant
    service: Service


class Busy(msgspec.Struct, tag="busy", frozen=True, kw_only=True):
    """Serving: never evicted, never stopped. ``leases`` and ``running`` not both empty."""

    tenant: Tenant
    service: Service
    leases: frozenset[str]
    running: int


Leaving = EvictReason | UnloadReason | Literal["failed"]
"""Why a slot is being emptied."""


class Draining(msgspec.Struct, tag="draining", frozen=True, kw_only=True):
    """The worker was asked whether it can be stopped."""

    tenant: Tenant
    service: Service
    since_ms: int
    why: Leaving
    evicting: bool
    """Else unloading."""


class Stopping(msgspec.Struct, tag="stopping", frozen=True, kw_only=True):
    """The worker was told to end, or failed to load; its memory is not free yet."""

    tenant: Tenant
    since_ms: int
    why: Leaving
    evicting: bool


Slot = Loading | Idle | Busy | Draining | Stopping


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    client: str
    granted_at_ms: int
    used: bool = False
    """Whether a request has named it."""


class UnloadWaiter(msgspec.Struct, frozen=True, kw_only=True):
    ticket: int
    worker: str
    name: str


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier loads of a model have shown.

    Attributes:
        load_ms: From the decision to load until the worker was ready; sleep does not count.
    """

    load_ms: int
    measured_bytes: int


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong with a model.

    Attributes:
        model: Its name.
        crashed_at_ms: Times of crashes, oldest first, at most ``CRASHES_KEPT``.
        identity: With ``reason`` incompatible: the files that were found so.
        loading: The last crash was while loading, not while serving.
    """

    model: str
    reason: FailureReason
    message: str
    identity: str
    crashed_at_ms: tuple[int, ...] = ()
    loading: bool = False
    quarantined: bool = False


class Eviction(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    clients: tuple[str, ...]
    """Who had asked for the model, and for whom it had to go."""


class Residue(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that did not come back from a process that is gone."""

    residue_bytes: int
    boot_id: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A model that people loaded and did not unload, and that is not in memory now."""

    model: Model
    ttl_ms: int | None
    ttl_asked: bool
    rows_max: int
    used_at_ms: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """This run of the daemon, or the last one.

    Attributes:
        ended_well: It was stopped in good order.
        settled: It lasted long enough.
        unclean_before: Runs in a row before it that neither settled nor ended well.
        suspects: Models (key and name) that were loading when those ended.
    """

    pid: int
    version: str
    memory_total_bytes: int
    boot_id: str
    started_at_ms: int
    ended_well: bool = False
    settled: bool = False
    unclean_before: int = 0
    suspects: tuple[tuple[str, str], ...] = ()


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """What the system last said of its memory, and since when."""

    level: PressureLevel = "normal"
    since_ms: int = 0


class Spare(msgspec.Struct, frozen=True, kw_only=True):
    """The process that waits for the next load.

    Attributes:
        name: None if there is none.
        started: How many there were.
        failures: How many in a row ended by themselves.
        retry_at_ms: No other is started before then.
    """

    name: str | None = None
    started: int = 0
    failures: int = 0
    retry_at_ms: int = 0


class Refusals(msgspec.Struct, frozen=True, kw_only=True):
    """Refusals of one model and code since the last record of them."""

    recorded_at_ms: int
    uncounted: int = 0
    last: RequestRefused


PolicyName = Literal["lru", "largest_first"]


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the daemon believes. Mappings are never changed in place."""

    limits: Limits
    generation: int = 0
    run: Run | None = None
    safe_mode_since_ms: int | None = None
    slots: dict[str, Slot] = {}
    pins: frozenset[str] = frozenset()
    kept: dict[str, Kept] = {}
    learned: dict[str, Learned] = {}
    failures: dict[str, Failures] = {}
    evictions: dict[str, tuple[Eviction, ...]] = {}
    residues: dict[str, Residue] = {}
    pressure: PressureLevel = "normal"
    short_since_ms: int | None = None
    """Since when ``pressure`` is not normal, and workers keep nothing for later."""
    workers_started: int = 0
    workers: dict[str, str] = {}
    """The keys of the slots that workers serve, by worker."""

    # Only the live pool knows what follows.
    pressure_reported: Pressure = Pressure()
    waiters: tuple[Waiter, ...] = ()
    wishes: tuple[Wish, ...] = ()
    unload_waiters: tuple[UnloadWaiter, ...] = ()
    leases: dict[str, Lease] = {}
    leases_granted: int = 0
    refusals: dict[tuple[str, str], Refusals] = {}
    spare: Spare = Spare()
    stopping: str | None = None
    """Why the daemon is about to stop; no new leases then."""
    detaching: bool = False
    read_only: str | None = None
    """Why the event log cannot be written."""
    policy: PolicyName = "lru"
    """Who goes first when room is needed; only simulations set another."""

    def slot_of(self, worker: str) -> Slot | None:
        """The slot that ``worker`` serves; None once it is gone."""
        key = self.workers.get(worker)
        return None if key is None else self.slots[key]

    @property
    def budget_bytes(self) -> int:
        """What all claims together may take, less what gone workers still hold."""
        held = sum(residue.residue_bytes for residue in self.residues.values())
        return max(self.limits.budget_bytes - held, 0)


def put(pool: Pool, slot: Slot) -> Pool:
    """``pool`` with ``slot`` in its place."""
    return msgspec.structs.replace(pool, slots={**pool.slots, slot.tenant.model.key: slot})


def has_asked_ttl(slot: Slot, ttl_ms: int | None) -> bool:
    """Whether a person asked for just this time, and no request for another one since."""
    overruled = isinstance(slot, Idle | Busy) and slot.service.ttl_asked_ms is not None
    return slot.tenant.ttl_asked and slot.tenant.ttl_ms == ttl_ms and not overruled


def residents(pool: Pool) -> list[Idle | Busy]:
    """Models that serve, or could at once."""
    return [slot for slot in pool.slots.values() if isinstance(slot, Idle | Busy)]


def resident(tenant: Tenant, service: Service, leases: frozenset[str], running: int) -> Idle | Busy:
    """The state of a loaded model that is so used."""
    if leases or running:
        return Busy(tenant=tenant, service=service, leases=leases, running=running)
    return Idle(tenant=tenant, service=service)
