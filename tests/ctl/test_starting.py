"""A daemon that is installed as a service and stopped, and one that is not installed.

The service manager is a stand-in that really starts the programs.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.conftest import Ctl
from tests.fakes.managers.running import RunningManager, running_manager

MODEL = "mlxd/glimpse"


@pytest.fixture
def manager() -> Iterator[RunningManager]:
    with running_manager("systemd") as manager:
        manager.home.mkdir(mode=0o700)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        (manager.home / "config.toml").write_text(f"[http]\nport = {port}\n")
        yield manager
        run(manager, "service", "uninstall")


def run(manager: RunningManager, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ctl", *arguments],
        env={**manager.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_who_wants_work_starts_the_service_and_who_looks_does_not(manager: RunningManager) -> None:
    assert run(manager, "service", "install").returncode == 0
    assert run(manager, "service", "stop").returncode == 0
    looked = run(manager, "status")
    assert looked.returncode == 69
    assert looked.stderr.endswith("\n  hint: start it: mlxctl service start\n")

    pinned = run(manager, "pin", MODEL, "--json")
    assert (pinned.returncode, pinned.stderr) == (0, "")
    assert json.loads(pinned.stdout) == {"v": 1, "model": MODEL, "pinned": True}
    assert run(manager, "service", "stop").returncode == 0

    loaded = run(manager, "load", MODEL, "--json")
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["model"] == MODEL


@pytest.mark.anyio
async def test_without_a_service_it_says_how_to_start(mlxctl: Ctl) -> None:
    for arguments in (("status",), ("pin", MODEL), ("load", MODEL)):
        ended = await mlxctl(*arguments)

        assert ended.code == 69
        assert ended.err.endswith(
            "\n  hint: start it: mlxd, or from login on: mlxctl service install\n"
        )
