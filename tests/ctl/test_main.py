"""The ends of the program: a reader that goes away, and Ctrl-C wherever it comes."""

import os
import signal

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["version"], ["--help"]])
async def test_nobody_reads(mlxctl: Ctl, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status())}
    with os.fdopen(writer, "wb") as theirs:
        async with (
            open_scripted_control(mlxctl.socket, script),
            mlxctl.started(*arguments, stdout=theirs.fileno()) as process,
        ):
            assert process.stderr is not None
            err = b"".join([chunk async for chunk in process.stderr])
            code = await process.wait()

    assert (code, err) == (141, b"")


async def test_ctrl_c_while_the_daemon_says_nothing(mlxctl: Ctl) -> None:
    async def say_nothing(_asked: Asked) -> None:
        return

    script: dict[type[c.Request], Part] = {c.GetStatus: say_nothing}
    async with (
        open_scripted_control(mlxctl.socket, script) as daemon,
        mlxctl.started("status") as process,
    ):
        await daemon.until(lambda: bool(daemon.requests))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = b"".join([chunk async for chunk in process.stderr])
        code = await process.wait()

    assert code == 130
    assert err == b"mlxctl: interrupted; what it asked for is withdrawn\n"


async def test_a_terminal_that_cannot_show_a_character_gets_a_question_mark(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status(home="/home/ada/größe"))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("status", PYTHONIOENCODING="ascii")

    assert ended.code == 0
    assert "home /home/ada/gr??e\n" in ended.out
