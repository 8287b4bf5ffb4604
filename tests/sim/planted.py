"""Bugs planted on purpose: a simulation that does not catch them proves nothing.

Each is a small mistake that somebody could make in the shipped code. CONTRIBUTING.md
names the command and the seed that catch each one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec
from msgspec.structs import replace

from daemon import kernel
from daemon.eventlog.log import EventLog
from daemon.eventlog.snapshot import Position
from daemon.pool import decide, eviction, facts, leaving, lifetime, schedule
from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.react import react
from daemon.pool.state import Pool, Stopping

_start_loads = schedule._start_loads
_unload_for_stop = leaving.unload_for_stop
_first_possible = schedule._first_possible
_write_snapshot = EventLog.write_snapshot


def _never_sync(event: m.Event) -> bool:
    """Intents are written, but nobody waits for the disk."""
    return False


def _stop_without_asking(pool: Pool, event: m.Event) -> tuple[m.AnyEffect, ...]:
    """Victims are stopped at once instead of being asked whether they run anything."""
    return tuple(
        m.RetireWorker(worker=effect.worker, reason="now")
        if isinstance(effect, m.DrainWorker)
        else effect
        for effect in react(pool, event)
    )


def _leaving_is_free(pool: Pool) -> int:
    """Memory of workers that were told to end counts as free before they are gone."""
    return sum(
        slot.tenant.claim_bytes for slot in pool.slots.values() if not isinstance(slot, Stopping)
    )


def _residue_is_free(pool: Pool) -> int:
    """Memory that did not come back from the dead is lent again."""
    return pool.limits.budget_bytes


def _sleep_counts(pool: Pool, by_ms: int) -> Pool:
    """Deadlines go on while the machine sleeps."""
    return pool


def _nobody_is_late(draft: Draft) -> None:
    """Who waits longer than they said waits on."""


def _stalls_are_patience(draft: Draft) -> None:
    """A load that makes no progress is given all the time in the world."""


def _press_on(draft: Draft) -> None:
    """Loads are started whatever the machine says of its memory."""
    level = draft.pool.pressure
    draft.pool = replace(draft.pool, pressure="normal")
    _start_loads(draft)
    draft.pool = replace(draft.pool, pressure=level)


def _restore_regardless(draft: Draft, wishes: tuple[m.Wish, ...]) -> None:
    """Safe mode is entered, and the pool comes back all the same."""
    new = tuple(wish for wish in wishes if wish.option.model.key not in draft.pool.slots)
    if new:
        draft.emit(m.WishesAdded(wishes=new))


def _detach_unloads(draft: Draft) -> None:
    """A detach takes what is idle out of memory, as a stop does."""
    detaching = draft.pool.detaching
    draft.pool = replace(draft.pool, detaching=False)
    _unload_for_stop(draft)
    draft.pool = replace(draft.pool, detaching=detaching)


def _first_is_skipped(draft: Draft, waiter: m.Waiter) -> m.Waiter | None:
    """Of an alias the second model is taken where there is one."""
    if waiter.rest:
        waiter = schedule._next_option(waiter, "off by one")
    return _first_possible(draft, waiter)


def _pins_are_not_kept(log: EventLog, position: Position, state: bytes, version: int) -> None:
    """Snapshots leave something out."""
    pool = msgspec.msgpack.decode(state, type=Pool)
    state = msgspec.msgpack.encode(replace(pool, pins=frozenset()))
    _write_snapshot(log, position, state, version)


class Bug(NamedTuple):
    """What takes the place of what."""

    owner: object
    attribute: str
    instead: Callable[..., Any] | property


PLANTED: Final[dict[str, Bug]] = {
    "detach-unloads": Bug(schedule, "unload_for_stop", _detach_unloads),
    "first-is-skipped": Bug(schedule, "_first_possible", _first_is_skipped),
    "leaving-is-free": Bug(eviction, "committed_bytes", _leaving_is_free),
    "never-sync": Bug(kernel, "must_sync", _never_sync),
    "nobody-is-late": Bug(schedule, "_refuse_late", _nobody_is_late),
    "pins-are-not-kept": Bug(EventLog, "write_snapshot", _pins_are_not_kept),
    "press-on": Bug(schedule, "_start_loads", _press_on),
    "residue-is-free": Bug(Pool, "budget_bytes", property(_residue_is_free)),
    "restore-regardless": Bug(lifetime, "add_wishes", _restore_regardless),
    "sleep-counts": Bug(facts, "_shifted", _sleep_counts),
    "stalls-are-patience": Bug(decide, "fail_stalled_loads", _stalls_are_patience),
    "stop-without-asking": Bug(kernel, "react", _stop_without_asking),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The program with this bug, for the length of the block."""
    if name is None:
        yield
        return
    with patch.object(*PLANTED[name]):
        yield
