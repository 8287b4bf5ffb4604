"""A decision in the making: each event is believed at once, so that the next sees it."""

from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import Pool
from daemon.wire.errors import Code, Fault


class Draft:
    """Events so far, and the pool as they make it. Local to one ``decide``."""

    def __init__(self, pool: Pool, now_ms: int) -> None:
        self.pool = pool
        self.now_ms = now_ms
        self.events: list[m.Event] = []

    def emit(self, event: m.Event) -> None:
        """Make ``event`` true."""
        self.pool = evolve(self.pool, event, self.now_ms)
        self.events.append(event)

    def refuse(
        self,
        ticket: int,
        code: Code,
        message: str,
        *,
        hint: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        """Answer ``ticket`` with a fault."""
        fault = Fault(code=code, message=message, hint=hint, retry_after_ms=retry_after_ms)
        self.emit(m.TicketRefused(ticket=ticket, fault=fault))

    def decision(self) -> m.Decision:
        return m.Decision(events=tuple(self.events))
