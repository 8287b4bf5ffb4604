"""``mlxctl log`` on a real log's files, by way of the real ``mlxd log``."""

import json

import pytest

from daemon.eventlog.disk import OsDisk
from tests.ctl.conftest import Ctl
from tests.daemon.eventlog.samples import build

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _events(mlxctl: Ctl) -> None:
    build(OsDisk(), mlxctl.home / "events", 20, segment_bytes_max=700)


async def test_verify(mlxctl: Ctl) -> None:
    sound, as_json = await mlxctl("log", "verify"), await mlxctl("log", "verify", "--json")

    assert (sound.code, sound.err) == (0, "")
    assert sound.out.startswith("20 records in ")
    assert json.loads(as_json.out)["records"] == 20


async def test_damage_is_exit_1_and_still_a_result(mlxctl: Ctl) -> None:
    first = min((mlxctl.home / "events").glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b'"at_ms"', b'"at_mS"', 1))
    found = await mlxctl("log", "verify", "--json")
    mended = await mlxctl("log", "repair")
    again = await mlxctl("log", "verify")

    assert (found.code, found.err) == (1, "")
    assert json.loads(found.out)["damages"]
    assert (mended.code, again.code) == (0, 0)
    assert "they are kept in:" in mended.out


async def test_export_of_another_folder(mlxctl: Ctl) -> None:
    (mlxctl.home / "events").rename(mlxctl.home / "elsewhere")
    folder = str(mlxctl.home / "elsewhere")
    ended = await mlxctl("log", "export", "copy.jsonl", "--events", folder, "--json")

    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["records"] == 20
    assert len((mlxctl.home / "copy.jsonl").read_text().splitlines()) == 20


async def test_what_cannot_be_done_keeps_its_exit_code(mlxctl: Ctl) -> None:
    plain = await mlxctl("log", "export", "copy.zip")
    as_json = await mlxctl("log", "verify", "--events", "/nowhere", "--json")

    assert (plain.code, plain.out) == (2, "")
    assert plain.err == "mlxctl: copy.zip should end in .jsonl or .tar.gz\n"
    assert (as_json.code, as_json.out) == (4, "")
    assert json.loads(as_json.err)["error"]["code"] == "not_found"
