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
CarryOut = Callable[[m.AnyCommand, m.Cause], Awaitable[None]]


async def watch_machine(
    carry_out: CarryOut, clock: Clock, read_pressure: ReadPressure, every_s: float = LOOK_EVERY_S
) -> None:
    """Report sleeps and changes of memory pressure, until cancelled.

    Args:
        carry_out: Returns once the command has been decided: the kernel sets ``clock`` ahead
            with it, and a sleep must not be reported twice.
    """
    level: m.PressureLevel = "normal"
    while True:
        await anyio.sleep(every_s)
        by_ms = clock.behind_ms()
        if by_ms > JUMP_MS:
            await carry_out(m.ReportClockJump(by_ms=by_ms), _SYSTEM)
        now = read_pressure()
        if now != level:
            level = now
            await carry_out(m.ReportPressure(level=level), _SYSTEM)
