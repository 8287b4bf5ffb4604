"""The real daemon and the real bridge on sockets that a manager made, and handed over."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2 as httpx
import pytest

from daemon.wire.client import open_control
from daemon.wire.paths import Home
from tests.daemon.running import temporary_home
from tests.daemon.wire.test_locks import waits_for_a_lock
from tests.e2e.service import eventually
from tests.fakes.managers.running import REPOSITORY, build_activate

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="there the programs ask launchd itself"
)
PASS_SOCKETS = str(REPOSITORY / "tests" / "launchd" / "pass_sockets.py")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate"
)


@contextmanager
def running(
    command: list[str], home: Home, *fds: int, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A program until the end of the block, which it survives, and ends well when told."""
    environ = {"PATH": os.defpath, "HOME": str(home.root), "MLXD_HOME": str(home.root), **more}
    with subprocess.Popen(command, env=environ, pass_fds=fds, stderr=subprocess.PIPE) as process:
        try:
            if command[0] == "systemd-socket-activate":
                assert process.stderr is not None
                [process.stderr.readline() for word in command if word.startswith("--listen")]
            yield process
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait() == 0, said


def generation(path: Path | str) -> int:
    async def ask() -> int:
        async with open_control(str(path), "test") as control:
            return (await control.status()).generation

    return anyio.run(ask)


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        made.run_dir.mkdir(mode=0o700)
        yield made


@pytest.fixture
def control(home: Home) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.control_socket))
        listener.listen()
        yield listener


@needs_systemd
def test_systemd_starts_the_daemon_for_its_first_connection(home: Home) -> None:
    """Of two sockets it takes the one of its name; the connection that woke it is served."""
    path = str(home.control_socket)
    listen = [f"--listen={path}", f"--listen={home.run_dir}/other", "--fdname=control:other"]
    command = ["systemd-socket-activate", *listen, "--setenv=MLXD_HOME", "--setenv=HOME"]
    with running([*command, sys.executable, "-I", "-m", "daemon"], home):
        assert generation(path) == 1


@needs_systemd
def test_systemd_starts_the_bridge_for_its_first_request(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    listen = [f"--listen={home.run_dir}/other", f"--listen=127.0.0.1:{port}"]
    command = [
        *("systemd-socket-activate", *listen, "--fdname=other:http"),
        *("--setenv=MLXD_HOME", "--setenv=HOME"),
    ]
    with running([*command, sys.executable, "-I", "-m", "http_bridge"], home):
        health = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60)
        assert (health.status_code, health.json()["status"]) == (503, "no_daemon")


def test_the_socket_outlives_the_daemons_that_serve_it(home: Home, control: socket.socket) -> None:
    inode, fd = home.control_socket.stat().st_ino, str(control.fileno())
    program = [sys.executable, "-I", "-m", "daemon"]
    command = [sys.executable, "-I", PASS_SOCKETS, "control", fd, "--", *program]
    for number in (1, 2):
        with running(command, home, control.fileno()):
            assert generation(home.control_socket) == number
        assert home.control_socket.stat().st_ino == inode
        assert not home.daemon_log.with_suffix(".boot.log").exists()
        assert '"daemon.stopped"' in home.daemon_log.read_text()


def test_launchd_hands_the_daemon_its_socket(
    home: Home, control: socket.socket, tmp_path: Path
) -> None:
    """Through Apple's function, as a C library has it that is preloaded."""
    library = tmp_path / "libactivate.so"
    build_activate(library)
    handed = {"LD_PRELOAD": str(library), "ACTIVATE_SOCKETS": f"control={control.fileno()}"}
    inode = home.control_socket.stat().st_ino
    command = [sys.executable, "-I", "-m", "daemon"]
    with running(command, home, control.fileno(), **handed):
        assert generation(home.control_socket) == 1
    assert home.control_socket.stat().st_ino == inode


def test_launchd_without_a_socket_of_that_name_is_fatal(home: Home, tmp_path: Path) -> None:
    library = tmp_path / "libactivate.so"
    build_activate(library)
    environ = {
        "LD_PRELOAD": str(library),
        "ACTIVATE_SOCKETS": "contrlo=0",
        "MLXD_HOME": str(home.root),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-m", "daemon"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no socket named 'control'" in done.stderr
    assert not home.control_socket.exists()


def test_under_a_manager_a_daemon_waits_for_the_one_before_it(
    home: Home, control: socket.socket
) -> None:
    """Else it would be started every ten seconds, for as long as the other one lives."""
    fd = control.fileno()
    program = [sys.executable, "-I", "-m", "daemon"]
    command = [sys.executable, "-I", PASS_SOCKETS, "control", str(fd), "--", *program]
    environ = {"MLXD_HOME": str(home.root)}
    first = subprocess.Popen(command, env=environ, pass_fds=[fd], stderr=subprocess.DEVNULL)
    assert generation(home.control_socket) == 1
    with running(command, home, fd) as second:
        eventually(lambda: waits_for_a_lock(second.pid), bool)
        first.terminate()
        assert first.wait() == 0
        assert generation(home.control_socket) == 2
