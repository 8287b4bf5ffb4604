"""The pool as it was: the event log folded up to a record or a moment."""

from collections.abc import Iterable
from typing import Final, Self

import msgspec

from daemon.eventlog.record import Record
from daemon.eventlog.snapshot import Position, Snapshot
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool
from daemon.server.views import Facts, status_view
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError
from daemon.wire.moments import HINT, parse_moment_ms

SEQ_DIGITS_MAX: Final = 11
"""Longer numbers are Unix milliseconds."""
AHEAD_MS_MAX: Final = 10_000
"""A moment so little in the future is taken for now: clocks differ."""


class Place(msgspec.Struct, frozen=True):
    """Where to stop reading: after a record, or at a moment in Unix milliseconds."""

    seq: int | None = None
    at_ms: int | None = None

    def holds(self, record: Record | Position) -> bool:
        """Whether ``record`` comes no later."""
        if self.seq is not None:
            return record.seq <= self.seq
        return self.at_ms is None or record.at_ms <= self.at_ms


class Past(msgspec.Struct, kw_only=True):
    """The pool after a record; before the first it is empty."""

    pool: Pool
    seq: int = 0
    at_ms: int = 0

    @classmethod
    def of(cls, snapshot: Snapshot | None) -> Self:
        """The pool as ``snapshot`` holds it, which is of this program's state version."""
        if snapshot is None:
            return cls(pool=Pool(limits=Limits(budget_bytes=0)))
        pool = msgspec.msgpack.decode(snapshot.state, type=Pool)
        return cls(pool=pool, seq=snapshot.position.seq, at_ms=snapshot.position.at_ms)


def parse_place(text: str, now_ms: int) -> Place:
    """What a person means by "17", "2h" or "2026-09-21 14:30".

    Raises:
        MlxdError: ``invalid_request`` if it is neither a record nor a moment, ``not_found``
            if it is a moment that has not come.
    """
    if text.isascii() and text.isdigit() and len(text) <= SEQ_DIGITS_MAX:
        return Place(seq=int(text))
    try:
        at_ms = parse_moment_ms(text, now_ms)
    except MlxdError as error:
        hint = f"{HINT}, or the number of a record"
        message = f"{text!r} is not a moment; {hint}"
        raise MlxdError(Code.INVALID_REQUEST, message, hint=hint) from error
    if at_ms > now_ms + AHEAD_MS_MAX:
        hint = "give a moment that is past, with its date unless it was today"
        raise MlxdError(Code.NOT_FOUND, f"{text!r} has not come yet; {hint}", hint=hint)
    return Place(at_ms=at_ms)


def fold(records: Iterable[Record], place: Place, snapshot: Snapshot | None = None) -> Past:
    """Believe ``records`` one after the other as far as ``place``.

    Args:
        records: Those after ``snapshot``, which ``place`` holds; without one, all.

    Raises:
        MlxdError: ``not_found`` if the log does not reach there.
    """
    past = Past.of(snapshot)
    first_ms: int | None = None
    for record in records:
        first_ms = record.at_ms if first_ms is None else first_ms
        if not place.holds(record):
            break
        believe(past, record)
    if past.seq == 0 or (place.seq is not None and past.seq < place.seq):
        raise _out_of_reach(past, place, first_ms)
    return past


def view_of(past: Past, place: Place, home: str) -> c.StatusView:
    """The same status that ``mlxctl status`` would have shown, as far as the log knows.

    Leases, running requests and waiters are not in the log: models in use show as idle,
    and the queue is empty. Memory of the daemon itself is not there either: 0.
    """
    run = past.pool.run
    facts = Facts(
        version=run.version if run else "",
        pid=run.pid if run else 0,
        started_at_ms=run.started_at_ms if run else 0,
        home=home,
        memory_total_bytes=run.memory_total_bytes if run else 0,
    )
    view = status_view(
        0,
        past.pool,
        facts,
        now_ms=past.at_ms if place.at_ms is None else place.at_ms,
        seq=past.seq,
        rss_bytes=0,
        read_only=None,
    )
    if run is None or run.ended_well:
        gone = ("mlxd was not running then",)
        return msgspec.structs.replace(view, warnings=(*gone, *view.warnings))
    return view


def believe(past: Past, record: Record) -> None:
    """Go on to the moment after ``record``, the next one."""
    for event in record.events:
        past.pool = evolve(past.pool, event, record.at_ms)
    past.seq, past.at_ms = record.seq, record.at_ms


def _out_of_reach(past: Past, place: Place, first_ms: int | None) -> MlxdError:
    hint = "mlxctl events --after 0 shows the log from its beginning"
    if first_ms is None:
        message = "the event log is empty"
    elif place.seq is None:
        message = "the event log begins later than that"
    elif place.seq == 0:
        message = "the event log's records begin with 1"
    else:
        message = f"the event log holds records 1 to {past.seq}, and not {place.seq}"
    return MlxdError(Code.NOT_FOUND, message, hint=hint)
