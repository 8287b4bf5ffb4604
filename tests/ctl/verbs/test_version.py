"""``mlxctl version``, with a daemon and without."""

import json

import pytest

from tests.ctl.conftest import Ctl
from tests.fakes.control import open_scripted_control

pytestmark = pytest.mark.anyio


async def test_with_a_daemon(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket):
        ended = await mlxctl("version")

    assert ended.code == 0
    assert ended.out.splitlines()[0].startswith("mlxctl ")
    assert ended.out.splitlines()[1] == "mlxd   0.9.0 (pid 812, protocol 1)"


async def test_without_a_daemon_is_no_failure(mlxctl: Ctl) -> None:
    plain, shape = await mlxctl("version"), await mlxctl("version", "--json")

    assert (plain.code, plain.err) == (0, "")
    assert plain.out.splitlines()[1] == "mlxd   not running"
    assert json.loads(shape.out)["daemon"] is None


async def test_json_names_the_daemon(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket):
        ended = await mlxctl("version", "--json")

    shape = json.loads(ended.out)
    assert list(shape) == ["v", "mlxctl", "python", "daemon"]
    assert shape["daemon"] == {"version": "0.9.0", "pid": 812, "protocol": 1}
