"""Which service this machine has; what it is made of: tests/launchd/test_service.py."""

from pathlib import Path

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import Home, find_home
from daemon.wire.settings import HttpSettings
from launchd.local import this_service
from launchd.service import Service
from launchd.steps import Ran, Run

HOME = find_home({"HOME": "/Users/ada"}, "darwin")


def never(argv: tuple[str, ...]) -> Ran:
    raise AssertionError(argv)


def nothing_is_loaded(argv: tuple[str, ...]) -> Ran:
    return Ran(113, "")


def made(
    environ: dict[str, str],
    tool: str | None = "launchctl",
    home: Home = HOME,
    http: HttpSettings | None = None,
    run: Run = never,
) -> Service:
    def which(program: str) -> str | None:
        return program if program == tool else None

    python = Path("/opt/python")
    return this_service(home, http or HttpSettings(), environ, python, which, run)


@pytest.mark.parametrize(
    ("environ", "tool", "said"),
    [
        ({"HOME": "/Users/ada", "SUDO_UID": "501"}, "launchctl", "without sudo"),
        ({"HOME": "/Users/ada"}, None, "neither launchctl nor systemctl"),
        ({}, "launchctl", "HOME"),
        ({"HOME": "/Users/ada", "HF_HOME": "hf"}, "launchctl", "HF_HOME"),
    ],
)
def test_what_cannot_be_a_service(environ: dict[str, str], tool: str | None, said: str) -> None:
    with pytest.raises(MlxdError, match=said):
        made(environ, tool)


def test_what_moves_the_files_is_written_in_full() -> None:
    environ = {"HOME": "/Users/ada", "MLXD_HOME": "~/m", "HF_HOME": "~/hf", "OPENAI_API_KEY": "k"}
    service = made(environ, home=find_home(environ, "darwin"))
    for part in service.parts:
        (content,) = part.files.values()
        assert b"<string>/Users/ada/m</string>" in content
        assert b"<string>/Users/ada/hf</string>" in content
        assert b"OPENAI" not in content


def test_each_manager_has_its_files_in_its_folder() -> None:
    environ = {"HOME": "/home/ada"}
    agents = made(environ)
    assert agents.manager.title == "launchd"
    assert [str(path) for part in agents.parts for path in part.files] == [
        "/home/ada/Library/LaunchAgents/org.mlxd.daemon.plist",
        "/home/ada/Library/LaunchAgents/org.mlxd.bridge.plist",
    ]
    units = made(environ, "systemctl")
    assert units.manager.title == "systemd"
    assert [path.name for part in units.parts for path in part.files] == [
        "mlxd.socket",
        "mlxd.service",
        "mlx-bridge.socket",
        "mlx-bridge.service",
    ]
    assert [part.lock.name for part in units.parts] == ["mlxd.lock", "mlx-bridge.lock"]
    assert [part.boot_log.name for part in units.parts] == ["daemon.boot.log", "bridge.boot.log"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-mac.local"])
def test_an_address_for_others_needs_a_key(host: str) -> None:
    service = made({"HOME": "/Users/ada"}, http=HttpSettings(host=host), run=nothing_is_loaded)
    with pytest.raises(MlxdError, match=r"http\.api_keys") as refused:
        service.install()
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_of_this_machine_needs_none(host: str) -> None:
    http = HttpSettings(host=host, port=0xF00D)
    assert made({"HOME": "/Users/ada"}, http=http, run=nothing_is_loaded).install()
