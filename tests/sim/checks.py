"""What must be true after every step, of the pool, the machine and the clients together."""

import trio

from daemon.pool.state import LEASE_LAPSE_MS, Busy, Draining, Idle, Loading
from tests.daemon.pool.durable import durable_part
from tests.sim.daemons import TOLERANCE_S, SimDaemon
from tests.sim.host import SimHost
from tests.sim.worker import Violation

DRAIN_STALL_MS = 120_000
TOLERANCE_MS = int(TOLERANCE_S * 1000)
CACHES_FIRST_MS = 7_000
"""Idle models go for want of memory only so long after workers dropped their caches."""


def check(daemon: SimDaemon, host: SimHost) -> None:
    """Look at everything.

    Raises:
        Violation: Something is not as it must be.
    """
    daemon.listen()
    if daemon.kernel.read_only is not None or daemon.kernel.pool.read_only is not None:
        daemon.blocked_at_s = trio.current_time()
    _check_memory(daemon, host)
    _check_waiting(daemon)
    _check_leases(daemon, host)
    if not host.in_threads:  # a clock that goes ahead does so before its record is written
        _check_times(daemon)
    if daemon.kernel.read_only is None and daemon.kernel.pool.read_only is None:
        _check_recorded(daemon)


def _check_memory(daemon: SimDaemon, host: SimHost) -> None:
    """The truth, summed over what really lives: all of it is counted, and is allowed."""
    pool, books = daemon.kernel.pool, daemon.witness.books
    counted = {slot.tenant.worker: key for key, slot in pool.slots.items()}
    held_bytes = 0
    paths = set()
    for worker in host.living():
        if not worker.weights_bytes:
            continue
        held_bytes += worker.weights_bytes
        if worker.path in paths:
            raise Violation(f"{worker.path} is in memory twice")
        paths.add(worker.path)
        if counted.get(worker.worker) != worker.path:
            raise Violation(f"{worker.worker} has {worker.path} in memory and is not counted")
    spares = [s.worker for s in host.spares if s.alive and s.terminated_at_s is None]
    if len(spares) > 1:
        raise Violation(f"{spares} are more spares than one")
    if held_bytes > books.ceiling_bytes + books.over_bytes:
        raise Violation(f"{held_bytes} bytes in memory, {books.ceiling_bytes} allowed")


def _check_waiting(daemon: SimDaemon) -> None:
    """Who asked before this instant is known to wait, and nobody waits beyond their time."""
    now_s, pool = trio.current_time(), daemon.kernel.pool
    waiting = {w.ticket for w in pool.waiters} | {w.ticket for w in pool.unload_waiters}
    for ticket, asked in daemon.tickets.items():
        if asked.at_s < now_s and ticket not in waiting:
            raise Violation(f"ticket {ticket} was lost")
        if asked.wait_s is not None and now_s > asked.at_s + asked.wait_s + TOLERANCE_S:
            raise Violation(f"ticket {ticket} waits {now_s - asked.at_s} s of {asked.wait_s}")


def _check_leases(daemon: SimDaemon, host: SimHost) -> None:
    """A lease that its client may count on is held, by a worker that nobody told to leave."""
    now_s, now_ms, pool = trio.current_time(), daemon.kernel.now_ms(), daemon.kernel.pool
    told = daemon.witness.books.leaving
    for name, held in daemon.held.items():
        worker = host.worker(held.worker)
        if worker is None or not worker.alive or now_ms - held.granted_at_ms >= LEASE_LAPSE_MS:
            continue  # it broke, or may have lapsed: the worker protects what it runs
        for at_ms, leaving, _ in told:
            if leaving == held.worker and at_ms > held.granted_at_ms:
                raise Violation(f"{leaving} was told to leave at {at_ms}, leased as {name}")
        if held.granted_at_s < now_s and name not in pool.leases:
            raise Violation(f"lease {name} was forgotten")
    told.clear()
    for name, lease in pool.leases.items():
        slot = pool.slots[lease.key]
        if not isinstance(slot, Busy) or name not in slot.leases:
            raise Violation(f"lease {name} is on a worker that does not serve")


def _check_times(daemon: SimDaemon) -> None:
    """Every load and every drain ends, and what nobody uses leaves."""
    pool, now_ms = daemon.kernel.pool, daemon.kernel.now_ms() - TOLERANCE_MS
    stays = pool.stopping is not None or pool.read_only is not None
    hard = daemon.witness.books.pressure == pool.pressure_reported.level == "hard"
    hard = hard and (pool.short_since_ms or 0) + CACHES_FIRST_MS < now_ms
    for key, slot in pool.slots.items():
        if isinstance(slot, Loading):
            if slot.progress_at_ms + pool.limits.load_stall_ms < now_ms:
                raise Violation(f"the load of {key} never ends")
        elif isinstance(slot, Draining):
            if slot.since_ms + DRAIN_STALL_MS < now_ms:
                raise Violation(f"{key} drains for ever")
        elif isinstance(slot, Idle) and not stays and key not in pool.pins:
            ttl_ms = slot.service.ttl_asked_ms
            ttl_ms = slot.tenant.ttl_ms if ttl_ms is None else ttl_ms
            if isinstance(ttl_ms, int) and slot.service.last_used_at_ms + ttl_ms < now_ms:
                raise Violation(f"{key} outstays its time")
            if hard and slot.service.loaded_at_ms < now_ms:
                raise Violation(f"{key} is idle under hard pressure")


def _check_recorded(daemon: SimDaemon) -> None:
    pool, witness = daemon.kernel.pool, daemon.witness
    if durable_part(pool) != durable_part(witness.pool):
        raise Violation("the log and the live pool differ")
    workers = {slot.tenant.worker for slot in pool.slots.values()}
    if workers != witness.books.entries.keys():
        raise Violation(f"the log tells of {witness.books.entries}, the pool has {workers}")
    if pool.pins != witness.books.pins:
        raise Violation("the log tells of other pins")
