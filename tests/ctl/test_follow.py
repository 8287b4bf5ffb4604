"""Watches that end otherwise than asked."""

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import LINES, status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

WORKERS = status(seq=4)


async def test_a_watch_that_fell_behind_says_where_to_go_on(mlxctl: Ctl) -> None:
    async def lag(asked: Asked) -> None:
        await asked.answer(
            c.LogRecord(id=0, seq=1, line=LINES[0]), c.WatchEnded(id=0, reason="lagged", seq=1)
        )

    script: dict[type[c.Request], Part] = {c.GetStatus: says(WORKERS), c.WatchEvents: lag}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("events", "-f", "--after", "0")

    assert ended.code == 1
    assert "daemon.started" in ended.out
    assert ended.err.endswith("hint: go on with: mlxctl events -f --after 1\n")


async def test_a_daemon_that_goes_away_is_not_taken_for_lag(mlxctl: Ctl) -> None:
    async def die(asked: Asked) -> None:
        await asked.answer(c.LogRecord(id=0, seq=1, line=LINES[0]))
        await asked.hang_up()

    script: dict[type[c.Request], Part] = {c.GetStatus: says(WORKERS), c.WatchEvents: die}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("events", "-f", "--after", "0")

    assert ended.code == 69
    assert ended.err == (
        "mlxctl: the daemon went away after record 1\n"
        "  hint: when it is back: mlxctl events -f --after 1\n"
    )
