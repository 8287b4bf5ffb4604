"""Reading the log through a control connection, once for all that is asked."""

from pathlib import Path

import pytest

from ctl.asking import explain
from daemon.wire import control as c
from daemon.wire.client import open_control
from daemon.wire.errors import Code, MlxdError
from tests.ctl.conftest import Ctl
from tests.ctl.verbs.test_events import log
from tests.ctl.views import LINES, known, resident, status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


async def test_an_alias_reads_the_log_once(mlxctl: Ctl) -> None:
    alias = known(name="fast", path="", source="alias", targets=("big", "mlxd/glimpse"))
    view = c.ModelsView(id=0, models=(alias, known(name="big", path="/big"), known()))
    script: dict[type[c.Request], Part] = {**log(*LINES), c.ListModels: says(view)}
    async with (
        open_scripted_control(mlxctl.socket, script) as daemon,
        open_control(mlxctl.socket, "test") as control,
    ):
        answer = await explain(control, "fast")

    assert [model.story.name for model in answer.models] == ["big", "mlxd/glimpse"]
    assert [model.resident is not None for model in answer.models] == [False, True]
    assert daemon.only(c.WatchEvents).after == 0


async def test_a_model_that_is_resident_under_another_name(mlxctl: Ctl, tmp_path: Path) -> None:
    here = status(models=(resident(name="tuned", path="/m"),))

    async def watch(asked: Asked) -> None:
        await asked.answer(c.WatchStarted(id=0, seq=0, status=here))
        await asked.answer(c.WatchEnded(id=0, reason="end", seq=0))

    view = c.ModelsView(id=0, models=(known(name="original", path="/m"),))
    script: dict[type[c.Request], Part] = {c.ListModels: says(view), c.WatchEvents: watch}
    async with (
        open_scripted_control(mlxctl.socket, script),
        open_control(mlxctl.socket, "test") as control,
    ):
        answer = await explain(control, "original")

    assert answer.models[0].resident == here.models[0]


async def test_a_log_that_comes_too_fast(mlxctl: Ctl) -> None:
    async def watch(asked: Asked) -> None:
        await asked.answer(c.WatchStarted(id=0, seq=9, status=status()))
        await asked.answer(c.WatchEnded(id=0, reason="lagged", seq=7))

    script: dict[type[c.Request], Part] = {
        c.ListModels: says(c.ModelsView(id=0, models=(known(),))),
        c.WatchEvents: watch,
    }
    async with (
        open_scripted_control(mlxctl.socket, script),
        open_control(mlxctl.socket, "test") as control,
    ):
        with pytest.raises(MlxdError) as caught:
            await explain(control, "mlxd/glimpse")
    assert caught.value.code is Code.LAGGED
