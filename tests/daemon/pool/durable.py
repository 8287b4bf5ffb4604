"""What of a pool the log alone gives back, for comparing a replay with the live pool."""

import msgspec

from daemon.pool.shapes import Waits
from daemon.pool.state import (
    Busy,
    Draining,
    Idle,
    Loading,
    Pool,
    Pressure,
    Service,
    Slot,
    Spare,
    Stopping,
    Tenant,
)


def durable_part(pool: Pool) -> Pool:
    """What a replay of the log must give: no waiters, leases, requests or uses."""
    slots = {key: _durable_slot(slot) for key, slot in pool.slots.items()}
    return msgspec.structs.replace(
        pool,
        slots=slots,
        pressure_reported=Pressure(),
        waiters=(),
        wishes=(),
        unload_waiters=(),
        leases={},
        leases_granted=0,
        refusals={},
        spare=Spare(),
        stopping=None,
        detaching=False,
        read_only=None,
    )


def _durable_slot(slot: Slot) -> Slot:
    match slot:
        case Loading():
            return msgspec.structs.replace(
                slot,
                tenant=_durable_tenant(slot.tenant),
                progress_at_ms=slot.since_ms,
                done_bytes=0,
            )
        case Busy() | Idle():
            return Idle(tenant=_durable_tenant(slot.tenant), service=_durable_service(slot.service))
        case Draining():
            tenant = _durable_tenant(slot.tenant)
            return Stopping(
                tenant=tenant, since_ms=slot.since_ms, why=slot.why, evicting=slot.evicting
            )
        case Stopping():
            return msgspec.structs.replace(slot, tenant=_durable_tenant(slot.tenant))


def _durable_tenant(tenant: Tenant) -> Tenant:
    return msgspec.structs.replace(tenant, measured_bytes=0, waits=Waits(), tokens_per_s=0.0)


def _durable_service(service: Service) -> Service:
    return msgspec.structs.replace(
        service, last_used_at_ms=service.recorded_use_at_ms, ttl_asked_ms=None
    )
