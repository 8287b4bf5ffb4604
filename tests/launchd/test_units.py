"""systemd user units: read by systemd itself where it is, and what must not be lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.wire.errors import MlxdError
from daemon.wire.paths import find_home
from daemon.wire.settings import HttpSettings
from launchd.agents import service_environment
from launchd.units import Units, bridge_units, daemon_units
from tests.launchd.cases import LINUX, PYTHON, USUAL


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("[")]


def test_workers_outlive_the_daemon() -> None:
    service = directives(daemon_units(LINUX, PYTHON, USUAL).service)
    assert {"KillMode=process", "OOMPolicy=continue", "TimeoutStopSec=60"} <= set(service)


def test_the_control_socket_is_the_owners() -> None:
    assert directives(daemon_units(LINUX, PYTHON, USUAL).socket)[1:-1] == [
        "FileDescriptorName=control",
        "DirectoryMode=0700",
        "ListenStream=/run/user/1000/mlxd/mlxd.sock",
        "SocketMode=0600",
    ]


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:11411"), ("localhost", "127.0.0.1:11411"), ("[::1]", "[::1]:11411")],
)
def test_addresses_as_systemd_writes_them(host: str, address: str) -> None:
    units = bridge_units(LINUX, PYTHON, HttpSettings(host=host), USUAL)
    assert f"ListenStream={address}" in directives(units.socket)


def test_a_line_break_in_a_path_cannot_add_a_directive() -> None:
    environment = service_environment({"HF_HOME": "/x\nExecStartPre=/bin/evil"})
    with pytest.raises(MlxdError, match="unit file"):
        daemon_units(LINUX, PYTHON, environment)


def test_what_cannot_be_started_is_refused() -> None:
    with pytest.raises(MlxdError, match="absolute"):
        daemon_units(LINUX, Path("python3"), USUAL)
    with pytest.raises(MlxdError, match="quotes"):
        daemon_units(LINUX, Path("/home/o'neil/bin/python"), USUAL)
    with pytest.raises(MlxdError, match="port") as refused:
        bridge_units(LINUX, PYTHON, HttpSettings(port=0), USUAL)
    assert refused.value.fault.hint == "set http.port in config.toml"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """Also with the characters that mean something to it in every value that varies."""
    python = tmp_path / "my new $HOME 100% env" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    environment = service_environment({"HF_HOME": '/mnt/a "b" \\%h $x'})
    home = find_home({"HOME": "/home/ada", "MLXD_HOME": "/srv/my 100% $x"}, "linux")
    for units in (
        daemon_units(home, python, environment),
        bridge_units(home, python, HttpSettings(), environment),
    ):
        assert verified(tmp_path, units) == (0, "")


def verified(folder: Path, units: Units) -> tuple[int, str]:
    (folder / f"{units.name}.service").write_text(units.service)
    (folder / f"{units.name}.socket").write_text(units.socket)
    verdict = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            "--user",
            "--man=no",
            str(folder / f"{units.name}.service"),
            str(folder / f"{units.name}.socket"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PATH": os.defpath},
    )
    return verdict.returncode, verdict.stderr
