"""Lock first, then socket; both named in a way that others can rely on."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.wire.locks import AlreadyRunning
from daemon.worker.claim import SOCKET_PATH_BYTES_MAX, claim


def test_a_path_too_long_for_a_socket_is_refused_everywhere(run_dir: Path) -> None:
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(run_dir)) - len("/w-.sock")
    claim("x" * room, run_dir).release()
    with pytest.raises(OSError, match="use a shorter runtime directory"):
        claim("x" * (room + 1), run_dir)


def test_the_id_is_free_only_after_the_process(run_dir: Path) -> None:
    first = claim("1", run_dir)
    with pytest.raises(AlreadyRunning):
        claim("1", run_dir)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(run_dir / "w-1.sock"))
    first.release()
    assert list(run_dir.iterdir()) == []


def test_a_look_does_not_turn_a_worker_away(run_dir: Path) -> None:
    """A daemon that starts looks whether earlier workers live, also those about to."""
    look = (
        "import sys, pathlib; from daemon.wire.locks import is_held\n"
        "print(flush=True)\n"
        "while True: is_held(pathlib.Path(sys.argv[1]))"
    )
    lock = run_dir / "w-1.lock"
    command = [sys.executable, "-c", look, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        try:
            for _ in range(500):
                lock.touch()
                taken = claim("1", run_dir)
                taken.release()
                os.close(taken._lock_fd)
        finally:
            looking.kill()
