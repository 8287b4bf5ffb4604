"""Whether a model would find room, for pools in every state that matters."""

from daemon.pool import messages as m
from daemon.pool.state import Busy, Failures, Idle, Limits, Pool, Service, Slot, Stopping, Tenant
from daemon.server.fitting import Room, room_for
from tests.daemon.pool.world import GB, option

SERVICE = Service(context_tokens=8192, loaded_at_ms=0, last_used_at_ms=0, recorded_use_at_ms=0)
CLAIM_M1 = 3 * GB + (192 << 20) + 16_384 * 1000
"""Weights, overhead and the cache of model m1 as tests/daemon/pool/world.py has it."""


def tenant(wanted: m.Option, size_bytes: int) -> Tenant:
    return Tenant(
        model=wanted.model,
        worker=f"w-{wanted.model.name}",
        reserved_bytes=size_bytes,
        kv_tokens=1,
        rows_max=1,
        ttl_ms=None,
        over_budget=False,
    )


def idle(number: int, size_bytes: int) -> Idle:
    return Idle(tenant=tenant(option(number), size_bytes), service=SERVICE)


def pool(*slots: Slot, pins: frozenset[str] = frozenset(), **more: object) -> Pool:
    limits = Limits(budget_bytes=10 * GB, kv_tokens=16_384)
    by_key = {slot.tenant.model.key: slot for slot in slots}
    return Pool(limits=limits, slots=by_key, pins=pins, **more)  # type: ignore[arg-type]


def test_room_now() -> None:
    assert room_for(pool(), option(1)) == Room(claim_bytes=CLAIM_M1, fits="now")


def test_what_nobody_uses_would_go() -> None:
    found = room_for(pool(idle(2, 5 * GB), idle(3, 4 * GB)), option(1))

    assert (found.fits, found.note) == ("after_evicting", "would evict m2")


def test_what_is_in_use_has_to_end_first() -> None:
    busy = Busy(
        tenant=tenant(option(3), 9 * GB), service=SERVICE, leases=frozenset({"l"}), running=1
    )
    found = room_for(pool(busy), option(1))

    assert found.fits == "after_waiting"
    assert found.note == "needs 3.22 GB, 1.00 GB is free, and the rest is in use or pinned"


def test_what_is_leaving_makes_room() -> None:
    leaving = Stopping(tenant=tenant(option(3), 9 * GB), since_ms=0, why="memory", evicting=True)
    found = room_for(pool(leaving), option(1))

    assert (found.fits, found.note) == ("after_waiting", "room is being made")


def test_more_than_the_budget_never_fits_and_says_the_sum() -> None:
    found = room_for(pool(), option(4))

    assert found.fits == "never"
    assert found.note is not None
    assert found.note.startswith("m4 needs 40.3 GB = weights 40.0 GB + KV cache")


def test_behind_a_pinned_model_it_never_fits() -> None:
    found = room_for(pool(idle(3, 9 * GB), pins=frozenset({"/m3"})), option(1))

    assert found.fits == "never"
    assert "pinned models hold 9.00 GB" in str(found.note)


def test_a_quarantined_model_is_not_tried() -> None:
    failures = {
        "/m1": Failures(
            model="m1",
            reason="crashed",
            message="m1 crashed 5 times",
            identity="",
            quarantined=True,
        )
    }
    found = room_for(pool(failures=failures), option(1))

    assert (found.fits, found.note) == ("never", "quarantined: m1 crashed 5 times")
