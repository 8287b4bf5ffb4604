"""What clients do in a simulation, and what they hold the daemon to."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import msgspec
import trio

from daemon.pool import messages as m
from tests.daemon.pool.world import GB, option
from tests.sim.daemons import CLOSED, Held, SimDaemon
from tests.sim.host import SimHost
from tests.sim.worker import Violation

TTLS_MS: Final[tuple[m.AskedIdle, ...]] = (None, None, None, 0, 30_000, "never")
CAPABLE: Final = 4
"""Models that can fit; the next one never can."""


class Outcome(msgspec.Struct):
    """What a simulation did."""

    steps: int = 0
    daemons: int = 0
    power_losses: int = 0
    stops: int = 0
    detaches: int = 0
    sleeps: int = 0
    configured: int = 0
    pressed: int = 0
    granted: int = 0
    fell_back: int = 0
    refused: int = 0
    served: int = 0
    left: int = 0
    workers: int = 0
    spares: int = 0
    read_ahead: int = 0
    safe_modes: int = 0
    restored: int = 0
    records: int = 0


class Clients:
    """They ask, wait, use, give up and go; one task each.

    Attributes:
        pins: As acknowledged, by model; None while nobody knows.
    """

    def __init__(self, random: Random, host: SimHost, outcome: Outcome) -> None:
        self.random = random
        self.host = host
        self.outcome = outcome
        self.pins: dict[str, bool | None] = {}
        self._number = 0

    def begin(self, daemon: SimDaemon) -> None:
        """One client more, with something to do."""
        doing = self.random.choices(
            (self._use, self._load, self._unload, self._evict, self._pin, self._set_ttl,
             self._forgive, self._clear_safe_mode),
            (8, 2, 1.5, 0.5, 1, 0.5, 1, 0.2),
        )[0]  # fmt: skip
        self._number += 1
        self.host.tasks.start_soon(self._run, doing, daemon, self._number)

    def leave(self, daemon: SimDaemon) -> None:
        """A client goes away, in the middle of whatever it waits for."""
        if daemon.clients:
            number = self.random.choice(list(daemon.clients))
            daemon.clients.pop(number).cancel()
            self.outcome.left += 1

    def check_pins(self, pinned: frozenset[str]) -> None:
        """After a restart: what was acknowledged is so; the rest is as it is."""
        for key, believed in self.pins.items():
            if believed is not None and (key in pinned) != believed:
                raise Violation(f"an acknowledged pin of {key} was lost")
        self.pins = {key: key in pinned for key in self.pins}

    async def _run(
        self, doing: Callable[[SimDaemon], Awaitable[None]], daemon: SimDaemon, number: int
    ) -> None:
        with trio.CancelScope() as scope:
            daemon.clients[number] = scope
            try:
                await doing(daemon)
            except CLOSED:
                pass  # its daemon is gone
            finally:
                daemon.clients.pop(number, None)

    # --- use ------------------------------------------------------------------------------

    async def _use(self, daemon: SimDaemon) -> None:
        chain = self._chain()
        wait_s = self.random.choice((0.1, 20.0, 200.0))
        ttl_ms = self.random.choice(TTLS_MS)
        priority = self.random.choice((0, 0, 0, -5, 5))
        deadline_at_ms = daemon.kernel.now_ms() + int(wait_s * 1000)
        asked_at_s = trio.current_time()
        before = daemon.witness.books.changes, self._excused(daemon, chain)
        answer = await daemon.ask(
            lambda ticket: m.Acquire(
                ticket=ticket,
                client="app",
                options=chain,
                deadline_at_ms=deadline_at_ms,
                ttl_ms=ttl_ms,
                priority=priority,
            ),
            wait_s,
        )
        if not isinstance(answer, m.AnswerGranted):
            self.outcome.refused += 1
            return
        try:
            if daemon.blocked_at_s < asked_at_s:  # else nothing could be loaded for a while
                self._check_choice(daemon, chain, answer, *before)
            await self._serve(daemon, answer)
        finally:
            daemon.release(answer.lease)

    def _chain(self) -> tuple[m.Option, ...]:
        """One model, or the models of an alias."""
        if self.random.random() < 0.7:
            return (option(self.random.randrange(CAPABLE + 1)),)
        return tuple(option(number) for number in self.random.sample(range(CAPABLE + 1), k=3))

    async def _serve(self, daemon: SimDaemon, answer: m.AnswerGranted) -> None:
        self.outcome.granted += 1
        now_s, now_ms = trio.current_time(), daemon.kernel.now_ms()
        key = answer.model.key
        daemon.held[answer.lease] = Held(answer.worker, key, now_s, now_ms)
        worker = self.host.worker(answer.worker)
        if worker is None:
            return
        if worker.path not in ("", key):
            raise Violation(f"{answer.worker} has {worker.path}, and was lent as {key}")
        await trio.sleep(self.random.random() * 0.1)
        outcome = await worker.serve(answer.lease, self.random.random() * 40)
        self.outcome.served += outcome == "served"
        refused = outcome == "refused" and worker.alive and not worker.hung
        if refused and worker.phase == "draining" and worker.honest and daemon.alive:
            raise Violation(f"{answer.worker} was leased and told to end")

    def _excused(self, daemon: SimDaemon, chain: tuple[m.Option, ...]) -> list[bool]:
        """For each model of a chain, whether anything is known that forbids it."""
        books = daemon.witness.books
        pinned = [e for e in books.entries.values() if e.key in books.pins]
        room_bytes = books.budget_bytes - sum(e.claim_bytes for e in pinned) - GB
        full = len(pinned) >= (books.limits.get("workers_max") or 100)
        return [
            full or each.model.key in books.troubled or each.model.weights_bytes > room_bytes
            for each in chain
        ]

    def _check_choice(
        self,
        daemon: SimDaemon,
        chain: tuple[m.Option, ...],
        answer: m.AnswerGranted,
        changes: int,
        excused: list[bool],
    ) -> None:
        """The first that can serve did."""
        keys = [each.model.key for each in chain]
        if answer.model.key not in keys:
            raise Violation(f"{answer.model.key} was lent for {keys}")
        taken = keys.index(answer.model.key)
        self.outcome.fell_back += taken > 0
        daemon.listen()
        quiet = changes == daemon.witness.books.changes and daemon.kernel.read_only is None
        after = self._excused(daemon, chain)
        for number in range(taken):
            if quiet and not excused[number] and not after[number]:
                raise Violation(f"{keys[number]} was passed over for {keys[taken]}")

    # --- verbs ------------------------------------------------------------------------------

    async def _load(self, daemon: SimDaemon) -> None:
        chosen = option(self.random.randrange(CAPABLE))
        over_budget, ttl_ms = self.random.random() < 0.05, self.random.choice(TTLS_MS)
        await daemon.ask(
            lambda ticket: m.Load(
                ticket=ticket,
                client="person",
                options=(chosen,),
                over_budget=over_budget,
                ttl_ms=ttl_ms,
            )
        )

    async def _unload(self, daemon: SimDaemon) -> None:
        """By request a pin goes with it."""
        key, name = self._named(CAPABLE)
        await self._about_pin(
            daemon, key, lambda t: m.Unload(ticket=t, client="person", key=key, name=name)
        )

    async def _evict(self, daemon: SimDaemon) -> None:
        key, name = self._named(CAPABLE)
        await daemon.ask(lambda t: m.Evict(ticket=t, client="person", key=key, name=name))

    async def _pin(self, daemon: SimDaemon) -> None:
        """Only small ones: the big ones pinned together would leave no room for anything."""
        key, name = self._named(2)
        kind = self.random.choice((m.Pin, m.Unpin))
        await self._about_pin(
            daemon, key, lambda t: kind(ticket=t, client="person", key=key, name=name)
        )

    async def _set_ttl(self, daemon: SimDaemon) -> None:
        key, name = self._named(CAPABLE)
        ttl_ms = self.random.choice((None, 5_000, 300_000))
        await daemon.ask(
            lambda t: m.SetTtl(ticket=t, client="person", key=key, name=name, ttl_ms=ttl_ms)
        )

    async def _forgive(self, daemon: SimDaemon) -> None:
        """Models crash so often here that without this none would be left to try."""
        key, name = self._named(CAPABLE)
        await daemon.ask(lambda t: m.Unquarantine(ticket=t, client="person", key=key, name=name))

    async def _clear_safe_mode(self, daemon: SimDaemon) -> None:
        await daemon.ask(lambda t: m.ClearSafeMode(ticket=t, client="person"))

    def _named(self, among: int) -> tuple[str, str]:
        number = self.random.randrange(among)
        return f"/m{number}", f"m{number}"

    async def _about_pin(
        self, daemon: SimDaemon, key: str, make: Callable[[int], m.ClientCommand]
    ) -> None:
        """Nobody knows what is pinned while anything about it is under way."""
        daemon.about_pins[key] += 1
        self.pins[key] = None
        await daemon.ask(make)
        daemon.about_pins[key] -= 1
        if not daemon.about_pins[key] and daemon.kernel.read_only is None:
            # After a failed sync nobody knows whether what was refused is on disk all the same.
            self.pins[key] = key in daemon.kernel.pool.pins
