"""Memory pressure as Linux and macOS tell it."""

import pytest

from daemon.supervisor.pressure import linux_level, read_pressure

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 total=0\n"
STALLED = CALM.replace("some avg10=0.00", "some avg10=35.10")


def meminfo(available_percent: float) -> str:
    available = int(1_000_000 * available_percent / 100)
    return f"MemTotal:  1000000 kB\nMemFree:  1 kB\nMemAvailable:  {available} kB\n"


@pytest.mark.parametrize(
    ("available_percent", "pressure", "level"),
    [
        (50, CALM, "normal"),
        (50, STALLED, "normal"),
        (14, STALLED, "soft"),
        (14, CALM, "normal"),
        (5, CALM, "soft"),
        (2, CALM, "hard"),
        (2, "", "hard"),
    ],
)
def test_linux(available_percent: float, pressure: str, level: str) -> None:
    assert linux_level(meminfo(available_percent), pressure) == level


def test_a_system_that_cannot_say_is_normal() -> None:
    assert linux_level("", "") == "normal"
    assert read_pressure() in ("normal", "soft", "hard")
