"""One question over a blocking socket: frames however they come."""

import json

import pytest

from daemon.wire import control as c
from daemon.wire.framing import encode_frame
from tests.ctl.conftest import Ctl
from tests.ctl.views import resident, status
from tests.fakes.control import WELCOME, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


async def test_both_answers_in_one_piece(mlxctl: Ctl) -> None:
    raw = encode_frame(WELCOME) + encode_frame(status(seq=4711))
    async with open_scripted_control(mlxctl.socket, greeting=raw):
        ended = await mlxctl("status", "--json")

    assert json.loads(ended.out)["seq"] == 4711


async def test_an_answer_of_many_pieces(mlxctl: Ctl) -> None:
    view = status(models=tuple(resident(name=f"model-{n:04}") for n in range(1000)))
    script: dict[type[c.Request], Part] = {c.GetStatus: says(view)}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("status", "--json")

    assert [model["name"] for model in json.loads(ended.out)["models"]] == [
        f"model-{n:04}" for n in range(1000)
    ]


async def test_an_answer_that_breaks_off(mlxctl: Ctl) -> None:
    raw = encode_frame(WELCOME) + encode_frame(status())[:-1]
    async with open_scripted_control(mlxctl.socket, greeting=raw):
        ended = await mlxctl("status")

    assert ended.code == 69
    assert "does not answer as mlxd does" in ended.err


async def test_a_frame_over_the_bound_is_refused_before_it_is_read(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, greeting=b"\x7f\xff\xff\xff"):
        ended = await mlxctl("status")

    assert ended.code == 1
    assert "over the bound" in ended.err
