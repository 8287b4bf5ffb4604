"""A process is told from a later one with its pid."""

import os
import subprocess
import sys

import pytest

from daemon import processes
from daemon.worker.identity import boot_id, process_start_time


def test_start_times_tell_processes_apart() -> None:
    own = process_start_time(os.getpid())
    assert own == process_start_time(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert process_start_time(child.pid) > own
    with pytest.raises(ProcessLookupError):
        process_start_time(child.pid)


def test_the_daemon_reads_the_same() -> None:
    assert process_start_time(os.getpid()) == processes.start_time(os.getpid())
    assert boot_id() == processes.boot_id()


def test_one_boot_has_one_name() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
