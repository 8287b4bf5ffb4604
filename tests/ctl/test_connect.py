"""Failures of a conversation come out as one typed error, whatever was wrapped around them."""

import pytest

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.fakes.control import open_scripted_control, says

pytestmark = pytest.mark.anyio


async def test_nobody_listens(mlxctl: Ctl) -> None:
    ended = await mlxctl("unload", "tiny")

    assert ended.code == 69
    assert ended.err == (
        f"mlxctl: the mlxd daemon is not running: nothing listens on {mlxctl.socket}\n"
        "  hint: start it: mlxd, or from login on: mlxctl service install\n"
    )


async def test_somebody_else_listens(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, greeting=b""):
        ended = await mlxctl("unload", "tiny")

    assert ended.code == 69
    assert "Traceback" not in ended.err


async def test_a_daemon_of_another_protocol(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.PROTOCOL_MISMATCH, message="mlxd speaks protocols 7 to 9")
    async with open_scripted_control(mlxctl.socket, greeting=c.Refusal(fault=fault)):
        ended = await mlxctl("unload", "tiny")

    assert (ended.code, ended.err) == (1, "mlxctl: mlxd speaks protocols 7 to 9\n")


async def test_an_answer_that_nobody_knows(mlxctl: Ctl) -> None:
    class FromTheFuture(c.Answer, tag="from_the_future", frozen=True, kw_only=True):
        pass

    async with open_scripted_control(mlxctl.socket, {c.UnloadModel: says(FromTheFuture(id=0))}):
        ended = await mlxctl("unload", "tiny")

    assert ended.code == 1
    assert "this mlxctl does not know" in ended.err
    assert "hint: compare the versions: mlxctl version" in ended.err
