"""The pool after each of many records: what a slider over the event log moves through."""

from collections.abc import Iterable, Iterator

import msgspec

from daemon.eventlog.record import Record
from daemon.eventlog.snapshot import Snapshot
from daemon.history import Past, believe
from daemon.pool import messages as m
from daemon.pool.budget import committed_bytes
from daemon.pool.state import Pool
from daemon.server.views import state_name
from daemon.wire.control import ModelState


class StillModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model in memory, as far as the log knows: leases and requests are not in it."""

    name: str
    worker: str
    state: ModelState
    claim_bytes: int
    measured_bytes: int
    pinned: bool


class Still(msgspec.Struct, frozen=True, kw_only=True):
    """One record, and the pool after it."""

    seq: int
    at_ms: int
    cause: m.Cause
    events: tuple[m.DurableEvent, ...]
    budget_bytes: int
    committed_bytes: int
    models: tuple[StillModel, ...]


def film(
    records: Iterable[Record], after: int, until: int, snapshot: Snapshot | None = None
) -> Iterator[Still]:
    """The pool after each record from ``after`` + 1 to ``until``.

    Args:
        records: Those after ``snapshot``, which is no later than ``after``; without one, all.
    """
    past = Past.of(snapshot)
    for record in records:
        if record.seq > until:
            return
        believe(past, record)
        if record.seq > after:
            yield _still(past.pool, record)


def _still(pool: Pool, record: Record) -> Still:
    return Still(
        seq=record.seq,
        at_ms=record.at_ms,
        cause=record.cause,
        events=record.events,
        budget_bytes=pool.budget_bytes,
        committed_bytes=committed_bytes(pool),
        models=tuple(
            StillModel(
                name=slot.tenant.model.name,
                worker=slot.tenant.worker,
                state=state_name(slot),
                claim_bytes=slot.tenant.claim_bytes,
                measured_bytes=slot.tenant.measured_bytes,
                pinned=key in pool.pins,
            )
            for key, slot in pool.slots.items()
        ),
    )
