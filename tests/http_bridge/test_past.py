"""Reading the past from a log that the shipped code wrote, through the shipped command."""

from pathlib import Path

import pytest

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.wire.errors import Code, MlxdError
from http_bridge.past import Past
from tests.daemon.test_history import GB, RECORDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose log holds a model's life."""
    monkeypatch.setenv("MLXD_HOME", str(tmp_path))
    log, _ = EventLog.open(tmp_path / "events", OsDisk())
    for record in RECORDS:
        log.append(record.at_ms, record.cause, record.events)
    log.commit(sync=False)
    log.close()
    return tmp_path


async def test_records_come_told_with_the_pool_after_them(home: Path) -> None:
    records = await Past().read(after=None, before=None, limit=500)

    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]
    ready = records[2]
    assert ready["events"] == [
        {
            "type": "load.ready",
            "model": "a",
            "text": "ready after 900 ms of loading: 3.00 GB measured, context 4,096 tokens",
        }
    ]
    assert ready["committed_bytes"] == 4 * GB
    assert [model["state"] for model in ready["models"]] == ["idle"]


async def test_a_part_of_it(home: Path) -> None:
    last = await Past().read(after=None, before=None, limit=2)
    earlier = await Past().read(after=None, before=5, limit=2)
    later = await Past().read(after=4, before=None, limit=500)

    assert [[r["seq"] for r in part] for part in (last, earlier, later)] == [[5, 6], [3, 4], [5, 6]]
    gone = later[0]["events"][0]
    assert (gone["type"], gone["model"]) == ("worker.exited", "a"), "named by what came before"


async def test_a_damaged_log_is_said(home: Path) -> None:
    (segment,) = (home / "events").glob("*.jsonl")
    other = segment.rename(segment.with_name("0000000000000004.jsonl"))

    with pytest.raises(MlxdError) as caught:
        await Past().read(after=None, before=None, limit=500)
    assert caught.value.code is Code.INTERNAL
    assert str(other) in str(caught.value)
