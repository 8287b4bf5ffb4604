"""``mlxctl why`` against a scripted log, as a process."""

import json
from pathlib import Path

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.verbs.test_events import log
from tests.ctl.views import LINES, known
from tests.fakes.control import Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


def script(*models: c.KnownModel) -> dict[type[c.Request], Part]:
    return {**log(*LINES), c.ListModels: says(c.ModelsView(id=0, models=models))}


async def test_a_resident_model(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, script(known())):
        plain = await mlxctl("why", "mlxd/glimpse")
        as_json = await mlxctl("why", "mlxd/glimpse", "--json")

    assert (plain.code, plain.err) == (0, "")
    assert plain.out.startswith("mlxd/glimpse is in memory, and nobody uses it now.\n  Loaded in ")
    shape = json.loads(as_json.out)
    assert (shape["v"], shape["asked"]) == (1, "mlxd/glimpse")
    (model,) = shape["models"]
    assert (model["model"], model["state"]) == ("mlxd/glimpse", "idle")
    assert model["headline"] == plain.out.splitlines()[0]
    assert [f"  {s}" for s in model["sentences"]] == plain.out.splitlines()[1:]
    assert [r["seq"] for r in model["records"]] == [2, 4]
    assert model["resident"]["claim_bytes"] == 1_200_000_000


async def test_an_alias_is_told_model_by_model(mlxctl: Ctl) -> None:
    alias = known(name="fast", path="", source="alias", targets=("big", "mlxd/glimpse"))
    models = (alias, known(name="big", path="/big"), known())
    async with open_scripted_control(mlxctl.socket, script(*models)):
        ended = await mlxctl("why", "fast")

    lines = ended.out.splitlines()
    assert lines[0] == "fast stands for big, then mlxd/glimpse."
    assert lines[2] == "big was never loaded, as far as the log goes."
    assert "mlxd/glimpse is in memory, and nobody uses it now." in lines


async def test_a_folder(mlxctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    mine = known(name="mlxd/glimpse", path=str(tmp_path / "m"))
    async with open_scripted_control(mlxctl.socket, script(mine)):
        ended = await mlxctl("why", "./m", cwd=tmp_path)

    assert ended.out.startswith("mlxd/glimpse is in memory")


async def test_what_nobody_knows(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, script(known())):
        ended = await mlxctl("why", "mlxd/glimps")

    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        "mlxctl: neither the event log nor the disk knows a model 'mlxd/glimps'\n"
        "  hint: did you mean mlxd/glimpse? mlxctl models lists what there is\n"
    )
