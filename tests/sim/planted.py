"""Bugs planted on purpose: a simulation that does not catch them proves nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

from daemon import kernel
from daemon.pool import eviction
from daemon.pool import messages as m
from daemon.pool.react import react
from daemon.pool.state import Pool, Stopping


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


PLANTED: Final[dict[str, tuple[object, str, Callable[..., object]]]] = {
    "never-sync": (kernel, "must_sync", _never_sync),
    "stop-without-asking": (kernel, "react", _stop_without_asking),
    "leaving-is-free": (eviction, "committed_bytes", _leaving_is_free),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The program with this bug, for the length of the block."""
    if name is None:
        yield
        return
    owner, attribute, bug = PLANTED[name]
    with patch.object(owner, attribute, bug):
        yield
