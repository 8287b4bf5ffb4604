"""``mlxctl models`` against a scripted daemon, as a process."""

import json

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import known
from tests.fakes.control import Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

SCRIPT: dict[type[c.Request], Part] = {c.ListModels: says(c.ModelsView(id=0, models=(known(),)))}


async def test_a_pipe_gets_plain_text(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, SCRIPT):
        ended = await mlxctl("models")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "NAME          KIND       SIZE  QUANT  CONTEXT  CAN    FITS\n"
        "mlxd/glimpse  vision  6.54 MB  4-bit    2,048  tools  now\n"
        "\n"
        "1 model on disk, 6.54 MB of weights\n"
    )


async def test_json_has_the_documented_shape(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, SCRIPT):
        ended = await mlxctl("models", "--json")

    assert json.loads(ended.out) == {
        "v": 1,
        "models": [
            {
                "name": "mlxd/glimpse",
                "path": "/models/glimpse",
                "source": "bundled",
                "kind": "vision",
                "capabilities": ["text", "vision", "tools"],
                "weights_bytes": 6_540_000,
                "context_tokens": 2048,
                "state": None,
                "created_at_ms": 1_790_000_000_000,
                "problem": None,
                "targets": [],
                "quantization": "4-bit",
                "claim_bytes": 300_000_000,
                "fits": "now",
                "fit_note": None,
            }
        ],
    }
