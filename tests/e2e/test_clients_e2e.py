"""Clients that people really use complete a conversation: a tool, its result, a streamed answer.

They live in environments of their own, which `make clients` makes; the programs are in
``tests/e2e/clients``. Facts of the protocols are asserted, not prose: models of this size call
the tool because they have to, and then say what they can.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service
from tests.e2e.tool_models import GLIMPSE_TOOLS, SMOLLM_TOOLS
from tests.models import REPO_ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROGRAMS = Path(__file__).parent / "clients"
PYTHON = REPO_ROOT / ".cache" / "clients-venv" / "bin" / "python"
NODE_FOLDER = REPO_ROOT / ".cache" / "clients-node"
CITIES = {"Tokyo", "Paris", "Oslo"}
IN_PYTHON = sorted(path.stem for path in PROGRAMS.glob("with_*.py"))


@pytest.fixture(scope="module", params=[SMOLLM_TOOLS, GLIMPSE_TOOLS])
def model(service: Service, request: pytest.FixtureRequest) -> Iterator[str]:
    service.mlxctl("load", request.param)
    yield str(request.param)
    service.mlxctl("unload", request.param)


def told(command: list[str], folder: Path) -> dict[str, Any]:
    """What a program says on its last line."""
    quiet = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    ran = subprocess.run(
        command, check=False, cwd=folder, env=quiet, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def check(report: dict[str, Any]) -> None:
    assert report["calls"], report
    for name, arguments in report["calls"]:
        assert name == "get_weather"
        assert set(arguments) == {"city"}
        assert arguments["city"] in CITIES
    answer = "".join(report["pieces"])
    assert len(report["pieces"]) > 1, "streamed"
    assert answer.strip()
    assert "tool_call" not in answer


@pytest.mark.parametrize("program", IN_PYTHON)
def test_in_python(service: Service, model: str, tmp_path: Path, program: str) -> None:
    assert PYTHON.exists(), "run `make clients`"
    command = [str(PYTHON), str(PROGRAMS / f"{program}.py"), service.url, model]
    check(told(command, tmp_path))


@pytest.mark.skipif(
    not (NODE_FOLDER / ".ready").exists(), reason="needs Node.js when `make clients` runs"
)
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
def test_the_ai_sdk(service: Service, model: str, protocol: str) -> None:
    program = NODE_FOLDER / "with_ai_sdk.mjs"
    program.write_bytes((PROGRAMS / "with_ai_sdk.mjs").read_bytes())
    check(told(["node", str(program), service.url, model, protocol], NODE_FOLDER))
