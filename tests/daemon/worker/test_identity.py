"""A process is told from a later one with its pid."""

import os
import subprocess
import sys
import time

import pytest

from daemon.worker.identity import boot_id, process_start_time


def test_start_times_tell_processes_apart() -> None:
    own = process_start_time(os.getpid())
    assert own == process_start_time(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert process_start_time(child.pid) > own
    with pytest.raises(ProcessLookupError):
        process_start_time(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="since boot there, since the epoch on macOS")
def test_start_time_is_in_seconds_since_boot() -> None:
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 < process_start_time(os.getpid()) <= since_boot


def test_one_boot_has_one_name() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
