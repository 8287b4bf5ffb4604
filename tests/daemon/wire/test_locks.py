"""Locks between real processes: who lives is who holds, whatever the file says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.wire.locks import AlreadyRunning, held, holder_pid, is_held
from tests.e2e.service import eventually

HOLD = """
import sys
from pathlib import Path
from daemon.wire.locks import held
with held(Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""

LOOK = """
import sys
from pathlib import Path
from daemon.wire.locks import is_held
while True:
    is_held(Path(sys.argv[1]))
"""


@contextmanager
def holding(lock: Path, how: str = "now") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(lock), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def waits_for_a_lock(pid: int) -> bool:
    """As Linux tells it; elsewhere nobody does, and it is taken for true."""
    locks = Path("/proc/locks")
    if not locks.exists():
        return True
    waiting = [line.split() for line in locks.read_text().splitlines() if "->" in line]
    return any(
        fields[2:5] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5] == str(pid)
        for fields in waiting
    )


def test_a_lock_says_who_holds_it_until_the_end_of_the_process(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert (is_held(lock), holder_pid(lock)) == (False, None)
    with holding(lock) as process:
        assert heard(process) == b"held\n"
        assert (is_held(lock), holder_pid(lock)) == (True, process.pid)
        with pytest.raises(AlreadyRunning, match=r"x\.lock"), held(lock):
            pass
        assert holder_pid(lock) == process.pid, "who was refused has written nothing"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (is_held(lock), holder_pid(lock)) == (False, None)
    with held(lock):
        assert holder_pid(lock) == os.getpid()


def test_who_waits_holds_it_next(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with holding(lock) as first:
        assert heard(first) == b"held\n"
        with holding(lock, "wait") as second:
            eventually(lambda: waits_for_a_lock(second.pid), bool)
            first.kill()
            assert heard(second) == b"held\n"
            assert holder_pid(lock) == second.pid


def test_a_look_does_not_turn_away_who_wants_the_lock(tmp_path: Path) -> None:
    """Somebody always looks: each taking meets looks, and still succeeds."""
    lock = tmp_path / "x.lock"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", LOOK, str(lock)]) as looking:
        try:
            for _ in range(200):
                with held(lock):
                    pass
        finally:
            looking.kill()


def test_a_holder_that_does_not_say_its_pid(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with holding(lock) as process:
        heard(process)
        lock.write_text("")
        assert holder_pid(lock) == 0


def test_a_lock_is_held_though_its_disk_is_full(tmp_path: Path) -> None:
    """The daemon starts then, too, and lends what is in memory."""
    lock = tmp_path / "x.lock"
    no_room = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    command = [sys.executable, "-c", no_room + HOLD, str(lock), "now"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert heard(process) == b"held\n"
        assert holder_pid(lock) == 0
        process.kill()
