"""What a program loads, seen in a fresh interpreter: files alone do not show it."""

import subprocess
import sys

import pytest

HEAVY = ("mlx", "mlx_lm", "mlx_vlm", "mlx_audio", "PIL", "numpy", "transformers", "torch")


def loaded_by(module: str) -> set[str]:
    """Top-level names in ``sys.modules`` once ``module`` has been imported."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    process = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return set(process.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "daemon.app",
        "daemon.__main__",
        "daemon.wire.client",
        "ctl.__main__",
        "http_bridge.__main__",
        "launchd.agents",
        "launchd.units",
    ],
)
def test_no_program_but_the_worker_loads_a_model_library(module: str) -> None:
    assert loaded_by(module) & set(HEAVY) == set()


def test_a_worker_listens_before_it_loads_a_model_library() -> None:
    """The daemon waits for the socket; the libraries take a second more."""
    assert loaded_by("daemon.worker.main") & set(HEAVY) == set()
    assert loaded_by("daemon.worker.engines") & set(HEAVY) == set()


def test_the_check_sees_a_library_that_is_loaded() -> None:
    assert "mlx" in loaded_by("mlx.core")


@pytest.mark.parametrize("module", ["daemon.__main__", "http_bridge.__main__"])
def test_programs_without_a_terminal_do_not_load_what_draws_on_one(module: str) -> None:
    """rich is 5 MB, and a quarter of the daemon's start."""
    assert loaded_by(module) & {"rich", "pygments"} == set()


def test_the_wire_needs_neither_http_nor_a_terminal_library() -> None:
    assert loaded_by("daemon.wire.client") & {"aiohttp", "rich", "click", "structlog"} == set()
