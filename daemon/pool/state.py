"""What is true of the pool: one frozen Struct a state, holding only the facts true in it."""

from typing import Final

import msgspec

from daemon.pool.messages import FailureReason, LoadReason, Model, Waiter

MIN_RESIDENCY_MS: Final = 10_000
"""A model loaded for less is no victim, unless the queue's head waited as long."""

LEASE_LAPSE_MS: Final = 30_000
"""A lease that no request has named by then ends."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration allows.

    Attributes:
        budget_bytes: All claims together stay within it, but for ``over_budget`` loads.
        workers_max: Most models at once; None is no bound of its own.
        loads_max: Most loads at once.
        queue_max: Most requests waiting.
        kv_tokens: KV allowance of one model, in tokens, all its rows together.
        ttl_ms: Idle time before a model is unloaded; None keeps it.
        load_stall_ms: A load without progress for so long has failed.
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
    """

    model: Model
    worker: str
    reserved_bytes: int
    measured_bytes: int = 0
    kv_tokens: int
    rows_max: int
    ttl_ms: int | None
    over_budget: bool
    process: Process | None = None

    @property
    def claim_bytes(self) -> int:
        """What the budget counts: never less than what was measured."""
        return max(self.reserved_bytes, self.measured_bytes)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a model that has been loaded."""

    context_tokens: int
    loaded_at_ms: int
    last_used_at_ms: int


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """Its memory is reserved; its worker is being started or reads weights."""

    tenant: Tenant
    reason: LoadReason
    since_ms: int
    progress_at_ms: int
    done_bytes: int = 0


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """Resident, unused: may be evicted if unpinned."""

    tenant: Tenant
    service: Service


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """Serving: never evicted, never stopped. ``leases`` and ``running`` not both empty."""

    tenant: Tenant
    service: Service
    leases: frozenset[str]
    running: int


class Draining(msgspec.Struct, frozen=True, kw_only=True):
    """The worker was asked whether it can be stopped."""

    tenant: Tenant
    service: Service
    since_ms: int
    evicting: bool
    """Else unloading."""


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """The worker was told to end, or failed to load; its memory is not free yet."""

    tenant: Tenant
    since_ms: int
    evicting: bool | None
    """None: neither evicted nor unloaded, its load has failed."""


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
    """What earlier loads of a model have shown."""

    load_ms: int
    measured_bytes: int


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong with a model.

    Attributes:
        crashed_at_ms: Times of crashes, oldest first, at most ``crashes_max`` kept.
        retry_at_ms: No load before this time.
        identity: With ``reason`` incompatible: the files that were found so.
    """

    reason: FailureReason
    message: str
    identity: str
    crashed_at_ms: tuple[int, ...] = ()
    retry_at_ms: int = 0
    quarantined: bool = False


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the daemon believes. Mappings are never changed in place."""

    limits: Limits
    generation: int = 0
    slots: dict[str, Slot] = {}
    pins: frozenset[str] = frozenset()
    learned: dict[str, Learned] = {}
    failures: dict[str, Failures] = {}
    workers_started: int = 0
    waiters: tuple[Waiter, ...] = ()
    unload_waiters: tuple[UnloadWaiter, ...] = ()
    leases: dict[str, Lease] = {}
    leases_granted: int = 0
    stopping: str | None = None
    """Why the daemon is about to stop; no new leases then."""

    def slot_of(self, worker: str) -> Slot | None:
        """The slot that ``worker`` serves; None once it is gone."""
        for slot in self.slots.values():
            if slot.tenant.worker == worker:
                return slot
        return None


def durable_part(pool: Pool) -> Pool:
    """What a replay of the log must give: no waiters, leases, requests or uses."""
    slots = {key: _durable_slot(slot) for key, slot in pool.slots.items()}
    return msgspec.structs.replace(
        pool,
        slots=slots,
        waiters=(),
        unload_waiters=(),
        leases={},
        leases_granted=0,
        stopping=None,
    )


def _durable_slot(slot: Slot) -> Slot:
    match slot:
        case Loading():
            return msgspec.structs.replace(slot, progress_at_ms=slot.since_ms, done_bytes=0)
        case Busy() | Idle():
            return Idle(tenant=_durable_tenant(slot.tenant), service=_durable_service(slot.service))
        case Draining():
            tenant = _durable_tenant(slot.tenant)
            return Stopping(tenant=tenant, since_ms=slot.since_ms, evicting=slot.evicting)
        case Stopping():
            return msgspec.structs.replace(slot, tenant=_durable_tenant(slot.tenant))


def _durable_tenant(tenant: Tenant) -> Tenant:
    return msgspec.structs.replace(tenant, measured_bytes=0, ttl_ms=None)


def _durable_service(service: Service) -> Service:
    return msgspec.structs.replace(service, last_used_at_ms=service.loaded_at_ms)
