"""The service as a user has it: installed, restarted, broken and removed by mlxctl.

launchctl and systemctl are stand-ins that really start the programs, on sockets which they
keep; launchd's reach them through a C library with Apple's contract.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import msgspec
import pytest

from tests.e2e.service import config_toml, eventually, started
from tests.fakes.managers.running import Kind, RunningManager, running_manager

pytestmark = pytest.mark.e2e

MODEL = "mlxd/glimpse"


class User(msgspec.Struct, frozen=True):
    """Somebody at a shell of a machine with a service manager."""

    manager: RunningManager
    port: int

    def mlxctl(self, *arguments: str, code: int = 0) -> str:
        """What it prints on stdout, or on stderr where it should fail."""
        done = subprocess.run(
            [sys.executable, "-m", "ctl", *arguments],
            env=self.manager.environ,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stderr if code else done.stdout

    def asked(self, *arguments: str) -> dict[str, Any]:
        shape: dict[str, Any] = json.loads(self.mlxctl(*arguments, "--json"))
        return shape

    def programs(self) -> dict[str, dict[str, Any]]:
        return {one["program"]: one for one in self.asked("service", "status")["programs"]}

    def pids(self) -> tuple[int | None, int | None]:
        found = self.programs()
        return found["mlxd"]["pid"], found["mlx-bridge"]["pid"]

    def worker(self) -> int:
        """The process that has the model."""
        (model,) = self.asked("status")["models"]
        assert model["state"] == "idle"
        return int(model["pid"])

    def configure(self, port: int | None = None, extra: str = "") -> None:
        self.manager.home.mkdir(mode=0o700, exist_ok=True)
        http = f"[http]\nport = {port or self.port}\n{extra}"
        (self.manager.home / "config.toml").write_text(config_toml({}, http))

    def health(self, port: int | None = None) -> str:
        reply = httpx.get(f"http://127.0.0.1:{port or self.port}/healthz", timeout=60)
        return str(reply.json()["status"])

    def inode(self) -> int:
        return (self.manager.home / "run" / "mlxd.sock").stat().st_ino

    def logs(self) -> str:
        found = sorted((self.manager.home / "logs").glob("*.log"))
        return "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=["launchd", "systemd"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    kind: Kind = request.param
    with running_manager(kind) as manager:
        user = User(manager, free_port())
        user.configure()
        yield user
        if "mlxd" in manager.ask("test", "loaded")[1]:
            user.mlxctl("service", "uninstall")


def test_from_install_to_uninstall(user: User) -> None:
    assert "no" in user.mlxctl("service", "status")
    user.mlxctl("service", "install")
    first = user.pids()
    for program in user.programs().values():
        assert {program[k] for k in ("installed", "current", "enabled", "loaded")} == {True}
    user.mlxctl("service", "install")
    assert user.pids() == first, "asking twice changes nothing"
    assert user.health() == "ok"
    user.mlxctl("load", MODEL)
    worker, inode = user.worker(), user.inode()

    user.mlxctl("service", "restart")
    second = user.pids()
    assert not set(first) & set(second), "both programs are new"
    assert (user.worker(), user.inode()) == (worker, inode), "the model and the socket stay"

    port = free_port()
    user.configure(port)
    assert not user.programs()["mlx-bridge"]["current"]
    user.mlxctl("service", "restart")
    assert user.health(port) == "ok"
    assert user.worker() == worker, "also where files were written anew"

    user.mlxctl("service", "stop")
    assert user.pids() == (None, None)
    assert "not running" in user.mlxctl("status", code=69)
    user.mlxctl("service", "disable")
    assert not user.programs()["mlxd"]["enabled"]
    user.mlxctl("service", "start")
    eventually(lambda: user.asked("status")["models"], lambda m: bool(m) and m[0]["pid"] != worker)

    user.mlxctl("service", "uninstall", "--purge", "--yes")
    left = [path for path in user.manager.user_home.rglob("*") if not path.is_dir()]
    assert left == [], "nothing is left"
    assert not user.manager.home.exists()
    assert user.manager.ask("test", "loaded") == (0, "")


@pytest.mark.slow
def test_a_killed_daemon_is_started_again_on_its_old_socket(user: User) -> None:
    user.mlxctl("service", "install")
    user.mlxctl("load", MODEL)
    worker, inode, (daemon, _) = user.worker(), user.inode(), user.pids()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    assert user.worker() == worker, "who connects waits in the socket for the next daemon"
    assert user.inode() == inode
    assert user.pids()[0] not in (daemon, None)


@pytest.mark.slow
def test_an_ended_daemon_is_started_by_who_connects(user: User) -> None:
    user.mlxctl("service", "install")
    user.mlxctl("load", MODEL)
    worker = user.worker()
    user.mlxctl("detach")
    eventually(user.health, lambda said: said == "ok")  # the bridge connects: there is a daemon
    assert user.worker() == worker


@pytest.mark.slow
def test_a_start_that_fails_is_told_with_its_reason(user: User) -> None:
    user.mlxctl("service", "install")
    user.configure(extra="prot = 3\n")
    assert "http.prot" in user.mlxctl("service", "restart", code=2), "before anything is ended"
    daemon, bridge = user.pids()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    shown = eventually(
        lambda: user.mlxctl("service", "status"), lambda text: "could not start" in text
    )
    assert "mlxd could not start. The end of" in shown
    assert re.search(r"\n +mlxd: .*config.toml:\d+: http.prot", shown)
    assert "mlxctl service restart" in shown
    assert user.pids() == (None, bridge)
    user.configure()
    assert eventually(user.pids, lambda pids: pids[0] is not None)[1] == bridge


@pytest.mark.slow
def test_a_daemon_started_by_hand_hands_its_models_over(user: User) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in user.manager.environ.items():
            patch.setenv(name, value)
        with started(user.manager.home, "daemon") as (by_hand, _):
            user.mlxctl("load", MODEL)
            worker = user.worker()
            user.mlxctl("service", "install")
            assert by_hand.wait(10) == 0
            assert user.worker() == worker
            refused = subprocess.run(
                [sys.executable, "-m", "daemon"],
                env=user.manager.environ,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode == 73, "a second daemon"
    user.mlxctl("service", "uninstall")


@pytest.mark.slow
def test_by_hand_beside_a_stopped_program_of_the_service(user: User) -> None:
    """The service's socket is never replaced, though no daemon runs and nobody holds the lock."""
    user.mlxctl("service", "install")
    inode = user.inode()
    user.mlxctl("detach")
    done = subprocess.run(
        [sys.executable, "-m", "daemon"],
        env=user.manager.environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert "mlxctl service stop" in done.stderr
    assert user.inode() == inode
    assert user.asked("status")["pid"] == user.pids()[0]


@pytest.mark.slow
def test_over_ssh_without_a_login_session(user: User) -> None:
    user.manager.ask("test", "session", "no")
    said = user.mlxctl("service", "install", code=6)
    assert {"launchd": "login session", "systemd": "enable-linger"}[user.manager.kind] in said
    assert list(Path(user.manager.user_home).rglob("*.plist")) == []
    user.manager.ask("test", "session", "yes")
