"""What the daemon looks at now and then: its wall clock, and the machine's memory."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from daemon.clock import Clock
from daemon.pool import messages as m
from daemon.supervisor.pressure import ReadPressure

LOOK_EVERY_S: Final = 5.0
JUMP_MS: Final = 2_000
"""A wall clock this far ahead of the monotonic one means that the machine slept."""

_SYSTEM: Final = m.Cause(command="system")
Send = Callable[[m.AnyCommand, m.Cause], Awaitable[None]]


async def watch_machine(
    send: Send, clock: Clock, read_pressure: ReadPressure, every_s: float = LOOK_EVERY_S
) -> None:
    """Report sleeps and changes of memory pressure, until cancelled."""
    level: m.PressureLevel = "normal"
    while True:
        await anyio.sleep(every_s)
        by_ms = clock.behind_ms()
        if by_ms > JUMP_MS:
            clock.advance(by_ms)
            await send(m.ReportClockJump(by_ms=by_ms), _SYSTEM)
        now = read_pressure()
        if now != level:
            level = now
            await send(m.ReportPressure(level=level), _SYSTEM)
