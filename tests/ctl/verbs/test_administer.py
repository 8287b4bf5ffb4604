"""Verbs about the daemon itself, as processes."""

import json

import anyio
import pytest

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.ctl.views import status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


async def test_safe_mode_clear(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, {c.ClearSafeMode: says(c.Ok(id=0))}):
        plain = await mlxctl("safe-mode", "clear")
        as_json = await mlxctl("safe-mode", "clear", "--json")

    assert plain.out == "mlxd is not in safe mode\n"
    assert json.loads(as_json.out) == {"v": 1, "safe_mode": False}


async def test_config_reload_tells_what_changed(mlxctl: Ctl) -> None:
    answer = c.ConfigReloaded(id=0, keys=("http.port", "pool.ttl_s"), notes=("later: http",))
    async with open_scripted_control(mlxctl.socket, {c.ReloadConfig: says(answer)}):
        plain = await mlxctl("config", "reload")
        as_json = await mlxctl("config", "reload", "--json")

    assert plain.out == "changed: http.port, pool.ttl_s\n  later: http\n"
    assert json.loads(as_json.out) == {
        "v": 1,
        "keys": ["http.port", "pool.ttl_s"],
        "notes": ["later: http"],
    }


async def test_config_reload_of_a_file_that_says_the_same(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {c.ReloadConfig: says(c.ConfigReloaded(id=0, keys=()))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("config", "reload")

    assert ended.out == "nothing has changed\n"


async def test_config_path_needs_no_file_and_no_daemon(mlxctl: Ctl) -> None:
    plain, as_json = await mlxctl("config", "path"), await mlxctl("config", "path", "--json")

    assert plain.out == f"{mlxctl.home}/config.toml\n"
    assert json.loads(as_json.out) == {
        "v": 1,
        "path": f"{mlxctl.home}/config.toml",
        "exists": False,
    }


async def test_config_check_is_mlxd_check(mlxctl: Ctl) -> None:
    file = mlxctl.home / "config.toml"
    absent = await mlxctl("config", "check")
    file.write_text('[pool]\nttl_s = "5m"\n')
    fine, as_json = await mlxctl("config", "check"), await mlxctl("config", "check", "--json")
    file.write_text("[pool]\nttl = 5\n")
    wrong, wrong_json = await mlxctl("config", "check"), await mlxctl("config", "check", "--json")

    assert (absent.code, absent.out) == (0, f"there is no {file}: all defaults\n")
    assert (fine.code, fine.out) == (0, f"{file} is fine\n")
    assert json.loads(as_json.out) == {"v": 1, "path": str(file), "exists": True}
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith(f"mlxctl: {file}:2: pool.ttl: unknown key")
    assert (wrong_json.code, wrong_json.out) == (2, "")
    error = json.loads(wrong_json.err)["error"]
    assert error["code"] == "invalid_request"
    assert f"{file}:2: pool.ttl" in error["message"]


async def test_config_show_hides_keys(mlxctl: Ctl) -> None:
    file = mlxctl.home / "config.toml"
    kept = "5e" * 32
    file.write_text(f'[http]\napi_keys = ["sha256:{kept}"]\n[worker.env]\nTOKEN = "deep-secret"\n')
    plain, as_json = await mlxctl("config", "show"), await mlxctl("config", "show", "--json")

    assert 'api_keys = ["(hidden)"]\n' in plain.out
    assert '[worker.env]\nTOKEN = "(hidden)"\n' in plain.out
    assert "kv_tokens = 16384\n" in plain.out
    assert "# ttl_s is not set\n" in plain.out
    shape = json.loads(as_json.out)
    assert (shape["v"], shape["exists"]) == (1, True)
    assert shape["settings"]["http"]["api_keys"] == ["(hidden)"]
    assert kept not in plain.out + as_json.out
    assert "deep-secret" not in plain.out + as_json.out


async def test_detach_returns_once_the_daemon_has_left(mlxctl: Ctl) -> None:
    asked, may_leave = anyio.Event(), anyio.Event()

    async def leave(request: Asked) -> None:
        await request.answer(c.Ok(id=0))
        asked.set()
        await may_leave.wait()
        await request.hang_up()

    script: dict[type[c.Request], Part] = {c.GetStatus: says(status()), c.DetachDaemon: leave}
    async with (
        open_scripted_control(mlxctl.socket, script),
        mlxctl.started("detach", "--json") as process,
    ):
        await asked.wait()
        assert process.returncode is None
        may_leave.set()
        assert process.stdout is not None
        out = b"".join([chunk async for chunk in process.stdout])
        code = await process.wait()

    assert code == 0
    assert json.loads(out) == {"v": 1, "detached": True, "models": ["mlxd/glimpse"]}


async def test_detach_refused(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.SHUTTING_DOWN, message="mlxd is shutting down")
    script: dict[type[c.Request], Part] = {
        c.GetStatus: says(status(models=())),
        c.DetachDaemon: says(c.Failed(id=0, fault=fault)),
    }
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("detach")

    assert (ended.code, ended.out, ended.err) == (75, "", "mlxctl: mlxd is shutting down\n")
