"""Lock first, then socket; both named in a way that others can rely on."""

import os
import socket
from pathlib import Path

import pytest

from daemon.worker.claim import SOCKET_PATH_BYTES_MAX, AlreadyRunning, claim


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
