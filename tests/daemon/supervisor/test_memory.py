"""How much memory models may have."""

import json
import struct
import subprocess
import sys

import pytest

from daemon.supervisor import memory

GB = 10**9


@pytest.mark.parametrize(
    ("configured", "total", "working_set", "budget"),
    [
        (None, 100 * GB, None, 75 * GB),
        (None, 100 * GB, 70 * GB, 63 * GB),
        (None, 100 * GB, 90 * GB, 75 * GB),
        (20 * GB, 100 * GB, 70 * GB, 20 * GB),
    ],
)
def test_budget(configured: int | None, total: int, working_set: int | None, budget: int) -> None:
    assert memory.budget_bytes(configured, total, working_set) == (budget, None)


def test_a_budget_beyond_the_machine_is_clamped_with_a_warning() -> None:
    budget, warning = memory.budget_bytes(200 * GB, 100 * GB, None)
    assert budget == 100 * GB
    assert warning is not None
    assert "200 GB" in warning
    assert "100 GB" in warning


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_this_machine_is_what_the_system_says() -> None:
    page = subprocess.run(["getconf", "PAGE_SIZE"], capture_output=True, check=True, text=True)
    pages = subprocess.run(["getconf", "_PHYS_PAGES"], capture_output=True, check=True, text=True)
    total = int(page.stdout) * int(pages.stdout)
    assert 0 < memory.memory_total_bytes() <= total * 1.01


MEMINFO = "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  600 kB\n"
STAT = "anon 1\nfile 90000\ninactive_file 50000\nactive_file 30000\n"


@pytest.mark.parametrize(
    ("meminfo", "unused", "stat", "available"),
    [
        (MEMINFO, sys.maxsize, "", 600 * 1024),
        (MEMINFO, 20_000, STAT, 100_000),
        (MEMINFO, 900_000, STAT, 600 * 1024),
        (MEMINFO, -90_000, STAT, 0),
        ("", sys.maxsize, "", 0),
    ],
)
def test_available_on_linux(meminfo: str, unused: int, stat: str, available: int) -> None:
    """Within a cgroup also what is unused of its limit, and its files in the page cache."""
    assert memory.linux_available_bytes(meminfo, unused, stat) == available


def test_available_on_macos_is_free_and_inactive() -> None:
    """mach/vm_statistics.h: free, active, inactive and wired pages come first, 32 bits each."""
    statistics = struct.pack("=4I2Q", 1_000, 20_000, 300, 4_000, 5, 6) + bytes(200)
    assert memory.darwin_available_bytes(statistics, 16_384) == 1_300 * 16_384


def test_some_of_this_machine_is_available() -> None:
    assert 0 < memory.available_bytes() <= memory.memory_total_bytes()


def test_the_probe_speaks_of_the_working_set_under_the_name_that_is_read() -> None:
    probe = [sys.executable, "-I", "-m", "daemon.worker", "--probe"]
    said = subprocess.run(probe, capture_output=True, check=True, text=True, timeout=120)
    assert memory.WORKING_SET_KEY in json.loads(said.stdout)
