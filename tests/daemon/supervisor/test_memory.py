"""How much memory models may have."""

import json
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


def test_the_probe_speaks_of_the_working_set_under_the_name_that_is_read() -> None:
    probe = [sys.executable, "-I", "-m", "daemon.worker", "--probe"]
    said = subprocess.run(probe, capture_output=True, check=True, text=True, timeout=120)
    assert memory.WORKING_SET_KEY in json.loads(said.stdout)
