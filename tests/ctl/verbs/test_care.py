"""Verbs about one model, against a scripted daemon, as processes."""

import json
from pathlib import Path

import pytest

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.ctl.views import known, resident, status
from tests.fakes.control import Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

OK = says(c.Ok(id=0))


@pytest.mark.parametrize(
    ("arguments", "request_", "text", "shape"),
    [
        (
            ["pin", "tiny"],
            c.PinModel(id=1, model="tiny"),
            "tiny is pinned: never evicted, never expired\n",
            {"v": 1, "model": "tiny", "pinned": True},
        ),
        (
            ["unpin", "tiny"],
            c.UnpinModel(id=1, model="tiny"),
            "tiny is not pinned\n",
            {"v": 1, "model": "tiny", "pinned": False},
        ),
        (
            ["ttl", "tiny", "never"],
            c.SetTtl(id=1, model="tiny", ttl_s=None),
            "tiny stays until it is unloaded or its room is needed\n",
            {"v": 1, "model": "tiny", "ttl_s": None},
        ),
        (
            ["unquarantine", "tiny"],
            c.UnquarantineModel(id=1, model="tiny"),
            "tiny may be loaded again\n",
            {"v": 1, "model": "tiny", "quarantined": False},
        ),
    ],
)
async def test_what_is_asked_and_told(
    mlxctl: Ctl,
    arguments: list[str],
    request_: c.Request,
    text: str,
    shape: dict[str, object],
) -> None:
    async with open_scripted_control(mlxctl.socket, {type(request_): OK}) as daemon:
        plain, as_json = await mlxctl(*arguments), await mlxctl(*arguments, "--json")

    assert (plain.code, plain.out, plain.err) == (0, text, "")
    assert json.loads(as_json.out) == shape
    assert daemon.requests == [request_, request_]


@pytest.mark.parametrize(
    ("pinned", "text"),
    [
        (False, "tiny is unloaded after 10m without use\n"),
        (
            True,
            "tiny is pinned, so it stays; unpinned, it is unloaded after 10m without use\n",
        ),
    ],
)
async def test_a_ttl_does_nothing_while_a_pin_holds(mlxctl: Ctl, pinned: bool, text: str) -> None:
    view = status(models=(resident(), resident(name="tiny", pinned=pinned)))
    script: dict[type[c.Request], Part] = {c.SetTtl: OK, c.GetStatus: says(view)}
    async with open_scripted_control(mlxctl.socket, script) as daemon:
        plain = await mlxctl("ttl", "tiny", "10m")
        as_json = await mlxctl("ttl", "tiny", "10m", "--json")

    assert (plain.code, plain.out, plain.err) == (0, text, "")
    assert json.loads(as_json.out) == {"v": 1, "model": "tiny", "ttl_s": 600.0}
    set_ttl = c.SetTtl(id=1, model="tiny", ttl_s=600.0)
    assert [r for r in daemon.requests if isinstance(r, c.SetTtl)] == [set_ttl] * 2


async def test_unquarantine_of_a_model_that_nothing_held_back(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {c.UnquarantineModel: says(c.Ok(id=0, already=True))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("unquarantine", "tiny")

    assert (ended.code, ended.out) == (0, "nothing held tiny back: it was not quarantined\n")


async def test_evict(mlxctl: Ctl) -> None:
    freed = says(c.Unloaded(id=0, model="tiny", freed_bytes=1_000_000_000))
    async with open_scripted_control(mlxctl.socket, {c.EvictModel: freed}):
        plain, as_json = await mlxctl("evict", "tiny"), await mlxctl("evict", "tiny", "--json")

    assert plain.out == "tiny is evicted: 1.00 GB freed\n"
    assert json.loads(as_json.out) == {"v": 1, "model": "tiny", "freed_bytes": 1_000_000_000}


async def test_a_refusal_keeps_its_code(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.CONFLICT, message="tiny is pinned; `mlxctl unpin tiny` first")
    script: dict[type[c.Request], Part] = {c.EvictModel: says(c.Failed(id=0, fault=fault))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("evict", "tiny")

    assert (ended.code, ended.out) == (6, "")
    assert ended.err == "mlxctl: tiny is pinned; `mlxctl unpin tiny` first\n"


async def test_a_folder_stands_for_the_model_that_lies_in_it(mlxctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "weights")
    view = c.ModelsView(id=0, models=(known(), known(name="mine", path=f"{tmp_path}/weights")))
    script: dict[type[c.Request], Part] = {c.ListModels: says(view), c.PinModel: OK}
    async with open_scripted_control(mlxctl.socket, script) as daemon:
        found = await mlxctl("pin", "./link", cwd=tmp_path)
        lost = await mlxctl("pin", "./other", cwd=tmp_path)

    assert found.out == "mine is pinned: never evicted, never expired\n"
    assert daemon.only(c.PinModel).model == "mine"
    assert (lost.code, lost.out) == (4, "")
    assert "no model is known by the folder ./other" in lost.err


async def test_a_time_that_is_none(mlxctl: Ctl) -> None:
    ended = await mlxctl("ttl", "tiny", "soon")

    assert ended.code == 2
    assert "'soon' is not a duration" in ended.err
