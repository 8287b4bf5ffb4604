"""``mlxctl service`` where no service manager answers; with one: tests/e2e/test_service_e2e.py."""

import json
from pathlib import Path
from typing import TypedDict

import pytest

from tests.ctl.conftest import Ctl

pytestmark = pytest.mark.anyio


class Environ(TypedDict):
    """What is set beside the usual."""

    PATH: str
    HOME: str


@pytest.fixture
def deaf(tmp_path: Path) -> Environ:
    """An environment whose launchctl knows no login session, as over SSH."""
    tool = tmp_path / "launchctl"
    tool.write_text("#!/bin/sh\necho 'Domain does not support specified action'\nexit 125\n")
    tool.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}


async def test_a_dry_run_shows_files_and_commands(mlxctl: Ctl, deaf: Environ) -> None:
    as_json = await mlxctl("service", "install", "--dry-run", "--json", **deaf)
    shape = json.loads(as_json.out)
    plist, _ = shape["files"]
    assert plist == f"{deaf['HOME']}/Library/LaunchAgents/org.mlxd.daemon.plist"
    assert f"<string>{mlxctl.socket}</string>" in shape["files"][plist]
    assert f"write {plist}" in shape["steps"]
    assert [step for step in shape["steps"] if f"{plist}" in step and "bootstrap" in step]
    plain = await mlxctl("service", "install", "--dry-run", **deaf)
    assert plain.out.splitlines()[: len(shape["steps"])] == shape["steps"]
    assert plists(deaf) == []


async def test_without_a_session_nothing_is_done(mlxctl: Ctl, deaf: Environ) -> None:
    for verb in ("install", "uninstall", "start", "stop", "restart", "enable", "disable"):
        ended = await mlxctl("service", verb, **deaf)
        assert (ended.code, ended.out) == (6, ""), verb
        assert "no login session" in ended.err
    assert not (Path(deaf["HOME"]) / "Library").exists()


async def test_status_says_so_and_what_it_knows_all_the_same(mlxctl: Ctl, deaf: Environ) -> None:
    ended = await mlxctl("service", "status", **deaf)
    assert ended.code == 0
    assert ended.out.splitlines()[1] == "mlxd        no         no       no      no"
    assert "launchd cannot be asked: this user has no login session" in ended.out


async def test_a_purge_is_asked_about(mlxctl: Ctl, deaf: Environ) -> None:
    ended = await mlxctl("service", "uninstall", "--purge", stdin=b"n\n", **deaf)
    assert ended.code == 130
    assert str(mlxctl.home) in ended.out + ended.err


async def test_a_mistake_in_the_settings_is_told_before_anything_ends(
    mlxctl: Ctl, deaf: Environ
) -> None:
    (mlxctl.home / "config.toml").write_text("[http]\nprot = 1\n")
    restart = await mlxctl("service", "restart", **deaf)
    assert (restart.code, "http.prot" in restart.err) == (2, True)
    status = await mlxctl("service", "status", **deaf)
    assert (status.code, "http.prot" in status.err) == (0, True)
    stop = await mlxctl("service", "stop", **deaf)
    assert (stop.code, "login session" in stop.err) == (6, True), "stopping needs no settings"


async def test_a_port_that_no_service_can_have(mlxctl: Ctl, deaf: Environ) -> None:
    (mlxctl.home / "config.toml").write_text("[http]\nport = 0\n")
    status = await mlxctl("service", "status", **deaf)
    stop = await mlxctl("service", "stop", **deaf)
    install = await mlxctl("service", "install", "--dry-run", **deaf)

    why = "a service needs a port that clients can know, not 0; set http.port in config.toml"
    assert (status.code, status.err) == (0, f"mlxctl: {why}\n"), "a look changes nothing"
    assert status.out.splitlines()[1] == "mlxd        no         no       no      no"
    assert (stop.code, "login session" in stop.err) == (6, True), "stopping needs no port"
    assert (install.code, install.err) == (2, f"mlxctl: {why}\n")


def plists(deaf: Environ) -> list[Path]:
    return list(Path(deaf["HOME"]).rglob("*.plist"))
