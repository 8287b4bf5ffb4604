"""A process is told from a later one with its pid."""

import os
import subprocess
import sys

import pytest

from daemon.identity import boot_id, process_start_time


def test_start_times_tell_processes_apart() -> None:
    own = process_start_time(os.getpid())
    assert own == process_start_time(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert process_start_time(child.pid) > own
    with pytest.raises(ProcessLookupError):
        process_start_time(child.pid)


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        process_start_time(child.pid)
    assert child.wait() == 0


def test_one_boot_has_one_name() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
