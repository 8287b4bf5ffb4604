"""``mlxctl doctor`` on homes that are well and on homes that are not."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import status
from tests.fakes.control import Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

LINE = (
    '{"seq":1,"at_ms":1790000000000,"cause":{"command":"start"},'
    '"events":[{"type":"daemon.stopped","v":1,"reason":"SIGTERM"}],"chain":"00"}\n'
)


async def found(mlxctl: Ctl, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    ended = await mlxctl("doctor", "--json", *arguments)
    shape = json.loads(ended.out)
    assert shape["healthy"] is (ended.code == 0)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for check in shape["checks"]:
        by_name.setdefault(check["name"], []).append(check)
    return ended.code, by_name


def write_config(mlxctl: Ctl, text: str) -> None:
    (mlxctl.home / "config.toml").write_text(text)


async def test_a_home_that_has_never_been_used_is_well(mlxctl: Ctl) -> None:
    write_config(mlxctl, "[http]\nport = 9\n")
    code, checks = await found(mlxctl)

    assert code == 0
    assert checks["daemon"][0]["verdict"] == "warning"
    assert checks["daemon"][0]["fix"] == "start it: mlxd, or from login on: mlxctl service install"
    assert checks["bridge"][0]["fix"] == "for apps that speak HTTP start it: mlx-bridge"
    assert checks["event log"][0]["verdict"] == "skipped"
    assert checks["worker"][0]["said"].startswith("starts; MLX ")
    assert checks["install"][0]["verdict"] == "ok"


async def test_a_daemon_s_warnings_are_told(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status(warnings=("safe mode",)))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("doctor")

    assert ended.code == 0
    assert "warning  daemon        safe mode\n" in ended.out
    assert "ok       memory        models may take 24.0 GB of 32.0 GB\n" in ended.out


@pytest.mark.parametrize(
    ("name", "said", "fix"),
    [
        ("folders", "can be entered by others (mode 0755)", "chmod 700"),
        ("sockets", "mlxd.sock is no socket", "move it away"),
        ("settings", "kv_tokens", None),
        ("event log", "damaged after", "mlxctl log repair"),
        ("models", "mine: there is no folder /not/there", "correct its path in config.toml"),
    ],
)
async def test_what_is_broken_is_named_with_its_fix(
    mlxctl: Ctl, name: str, said: str, fix: str | None
) -> None:
    break_it(name, mlxctl.home)
    code, checks = await found(mlxctl)

    assert code == 1
    bad = next(check for check in checks[name] if check["verdict"] == "bad")
    assert said in bad["said"]
    assert fix is None or fix in bad["fix"]


def break_it(name: str, home: Path) -> None:
    match name:
        case "folders":
            (home / "logs").mkdir()
            (home / "logs").chmod(0o755)
        case "sockets":
            (home / "run" / "mlxd.sock").write_text("no socket")
        case "settings":
            (home / "config.toml").write_text('[pool]\nkv_tokens = "many"\n')
        case "event log":
            (home / "events").mkdir(mode=0o700)
            log = home / "events" / "0000000000000001.jsonl"
            log.write_text(LINE * 500)
        case "models":
            (home / "config.toml").write_text('[models.mine]\npath = "/not/there"\n')


@pytest.mark.parametrize(
    ("status", "body", "verdict", "said"),
    [
        (200, {"status": "ok"}, "ok", "says ok"),
        (200, {"status": "read_only"}, "warning", "says read_only"),
        (503, {}, "warning", "says status 503"),
    ],
)
async def test_the_bridge_is_asked(
    mlxctl: Ctl, status: int, body: dict[str, str], verdict: str, said: str
) -> None:
    async def health(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/healthz", health)
    async with TestServer(app) as server:
        write_config(mlxctl, f"[http]\nport = {server.port}\n")
        _, checks = await found(mlxctl)

    assert checks["bridge"][0]["verdict"] == verdict
    assert checks["bridge"][0]["said"].endswith(said)


async def test_a_bridge_on_a_free_port_cannot_be_asked(mlxctl: Ctl) -> None:
    write_config(mlxctl, "[http]\nport = 0\n")
    _, checks = await found(mlxctl)

    assert checks["bridge"][0]["verdict"] == "skipped"


async def test_the_list_of_what_only_a_mac_can_show(mlxctl: Ctl) -> None:
    """And what any machine can: a daemon of its own lives, is killed, and is followed."""
    code, checks = await found(mlxctl, "--selftest")

    assert code == 0
    assert {"disk flush", "exits", "activation", "session", "metal", "pressure", "awake"} < set(
        checks
    )
    assert checks["peer"][0]["verdict"] == "ok"
    assert "adopted after a kill" in checks["life"][0]["said"]
