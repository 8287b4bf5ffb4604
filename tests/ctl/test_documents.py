"""docs/mlxctl.md says what mlxctl does: its verbs, exit codes, and the fields of its JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from ctl.answer import Timing
from ctl.bench import Measurement
from ctl.cli import VERBS
from ctl.health import Check
from ctl.measuring import Figures
from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import HANDLING
from tests.ctl.conftest import REPO_ROOT

PAGE: Final = (REPO_ROOT / "docs" / "mlxctl.md").read_text("utf-8")
ON_THE_WIRE: Final = {"id", "type"}
"""How answers find their requests: nothing that a script sees."""


def documented(heading: str) -> list[dict[str, Any]]:
    """The objects in the JSON blocks of a section."""
    section = re.search(
        rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert section is not None, heading
    blocks = re.findall(r"```json\n(.*?)```", section[1], re.DOTALL)
    return [shape for block in blocks for shape in objects(block)]


def objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    while text := text.strip():
        shape, end = decoder.raw_decode(text)
        yield shape
        text = text[end:]


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__) - ON_THE_WIRE


STATUS, MODELS, BENCH = documented("status")[0], documented("models")[0], documented("bench")[0]
LOADS, RUN = documented("load, unload and evict"), documented("run")[0]


@pytest.mark.parametrize(
    ("shape", "kind", "beside"),
    [
        (STATUS, c.StatusView, {"v"}),
        (STATUS["models"][0], c.ResidentModel, set()),
        (STATUS["queue"][0], c.QueuedRequest, set()),
        (MODELS, c.ModelsView, {"v"}),
        (MODELS["models"][0], c.KnownModel, set()),
        (LOADS[0], c.Loaded, {"v"}),
        (LOADS[1], c.Unloaded, {"v"}),
        (LOADS[2]["progress"], c.Progress, set()),
        (LOADS[3], c.LoadEstimate, {"v"}),
        (RUN["usage"], d.Usage, set()),
        (RUN["timing"], Timing, set()),
        (BENCH, Measurement, {"v", "before"}),
        (BENCH["figures"][0], Figures, set()),
        (documented("doctor")[0]["checks"][0], Check, set()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_field_is_documented_and_no_other(
    shape: dict[str, Any], kind: type[msgspec.Struct], beside: set[str]
) -> None:
    assert set(shape) == fields(kind) | beside


def test_every_documented_answer_begins_with_its_version() -> None:
    for heading in re.findall(r"^### (.*)$", PAGE, re.MULTILINE):
        for shape in documented(heading):
            assert next(iter(shape.items())) == ("v", 1), heading


def test_every_verb_is_in_the_table_and_no_other() -> None:
    table = PAGE.partition("| verb |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = {verb.split()[0] for cell in cells for verb in re.findall(r"`([^`]+)`", cell)}

    assert named == set(VERBS)


def test_exit_codes_are_those_of_the_table_of_errors() -> None:
    table = PAGE.partition("| exit |")[2].partition("\n\n")[0]
    documented = {
        (int(row[0]), code)
        for line in table.splitlines()
        if (row := [cell.strip() for cell in line.strip("|").split("|")])[0].isdigit()
        for code in re.findall(r"`(\w+)`", row[2])
    }

    assert documented == {(handling.exit_code, str(code)) for code, handling in HANDLING.items()}
