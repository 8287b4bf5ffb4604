"""Children of a bench: measured, and gone after the block."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.processes import alive, child_environ, cpu_ms, rss_mb, started

WAITS = [sys.executable, "-c", "print('here', flush=True); input()"]
DEAF_PROGRAM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
signal.pause()
"""
DEAF = [sys.executable, "-c", DEAF_PROGRAM]


class Broken(Exception):
    """What goes wrong in a block."""


def test_a_child_is_gone_after_its_block_even_if_that_fails(tmp_path: Path) -> None:
    pids: list[int] = []

    def block() -> None:
        with started(WAITS, tmp_path / "log", child_environ({}), talks=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            assert alive(process.pid)
            pids.append(process.pid)
            raise Broken

    with pytest.raises(Broken):
        block()
    assert not alive(pids[0])


def test_a_child_that_is_deaf_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.END_TIMEOUT_S", 0.2)
    with started(DEAF, tmp_path / "log", child_environ({}), talks=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
    assert process.returncode == -9


def test_children_may_keep_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environ = child_environ({"MORE": "1"})
    assert "PYTHONDONTWRITEBYTECODE" not in environ
    assert environ["MORE"] == "1"


def test_this_process_has_memory_and_spends_time() -> None:
    times = os.times()
    assert cpu_ms(os.getpid()) == pytest.approx((times.user + times.system) * 1000, abs=100)
    assert 10 < rss_mb(os.getpid()) < 10_000
