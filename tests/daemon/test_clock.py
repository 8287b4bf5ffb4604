"""Time never runs backwards, and a machine that slept is noticed."""

import anyio
import pytest

from daemon.clock import Clock
from daemon.pool import messages as m
from daemon.watching import watch_machine


class Hands:
    """Two clocks that a test sets."""

    def __init__(self) -> None:
        self.wall_s = 1_790_000_000.0
        self.monotonic_s = 50.0

    def clock(self, not_before_ms: int = 0) -> Clock:
        return Clock(
            not_before_ms,
            wall_s=lambda: self.wall_s,
            monotonic_s=lambda: self.monotonic_s,
        )

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


def test_it_starts_at_the_wall_clock_and_follows_the_monotonic_one() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now_ms() == 1_790_000_000_000
    hands.pass_s(1.5)
    hands.wall_s -= 3600  # somebody set the clock back
    assert clock.now_ms() == 1_790_000_001_500
    assert clock.behind_ms() == -3_600_000


def test_it_never_starts_before_the_logs_last_time() -> None:
    assert Hands().clock(not_before_ms=1_800_000_000_000).now_ms() == 1_800_000_000_000


@pytest.mark.anyio
async def test_sleep_and_pressure_are_reported_once() -> None:
    hands = Hands()
    clock = hands.clock()
    told: list[m.PressureLevel] = ["normal", "soft", "soft", "hard"]
    levels = iter(told)
    sent: list[m.AnyCommand] = []
    done = anyio.Event()

    async def carry_out(command: m.AnyCommand, cause: m.Cause) -> None:
        """As the kernel does: the clock goes ahead with the report."""
        assert cause.command == "system"
        sent.append(command)
        if isinstance(command, m.ReportClockJump):
            clock.advance(command.by_ms)
        if command == m.ReportPressure(level="hard"):
            done.set()

    def read() -> m.PressureLevel:
        level: m.PressureLevel = next(levels, "hard")
        if level == "normal":
            hands.wall_s += 600  # the lid was closed for ten minutes
        return level

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_machine, carry_out, clock, read, 0)
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()
    assert sent == [
        m.ReportClockJump(by_ms=600_000),
        m.ReportPressure(level="soft"),
        m.ReportPressure(level="hard"),
    ]
    assert clock.now_ms() == 1_790_000_600_000
