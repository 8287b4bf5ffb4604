"""``mlxctl simulate`` on a real log's files, by way of the real ``mlxd history``."""

import json

import pytest

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from tests.ctl.conftest import Ctl
from tests.daemon.test_simulation import RECORDS

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _events(mlxctl: Ctl) -> None:
    log, _ = EventLog.open(mlxctl.home / "events", OsDisk())
    for record in RECORDS:
        log.append(record.at_ms, record.cause, record.events)
    log.commit(sync=True)
    log.close()


async def test_a_page_and_json(mlxctl: Ctl) -> None:
    arguments = ("simulate", "--budget", "1G", "--policy", "ttl=10m", "--since", "2026-09-21")
    plain, as_json = await mlxctl(*arguments), await mlxctl(*arguments, "--json")

    assert (plain.code, plain.err) == (0, "")
    assert plain.out.startswith(
        "From 2026-09-21 14:13 to 2026-09-21 14:15: policy lru, TTL 10m, budget 1.00 GB\n"
    )
    shape = json.loads(as_json.out)
    assert (shape["v"], shape["rules"]["budget_bytes"]) == (1, 1_000_000_000)
    assert (shape["recorded"]["loads"], shape["simulated"]["refused"]) == (1, 2)


async def test_records_that_cannot_be_read_are_told(mlxctl: Ctl) -> None:
    segment = max((mlxctl.home / "events").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"seq":5,"at_ms":1', b'"seq":5,"at_ms":2'))
    simulated, as_json = await mlxctl("simulate"), await mlxctl("simulate", "--json")
    past = await mlxctl("status", "--at", "4", "--json")

    for ended in (simulated, as_json, past):
        assert ended.code == 0
        assert ended.err.startswith("mlxd: from record 5 on the event log cannot be read (")
        assert ended.err.endswith("left out; all of the damage: mlxctl log verify\n")
    assert simulated.out.startswith("From 2026-09-21 14:13 to 2026-09-21 14:15: policy lru")
    for shape in (json.loads(as_json.out), json.loads(past.out)):
        assert (shape["damage"]["seq"], shape["damage"]["file"]) == (5, str(segment))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "lru,largest-first"], "'lru' and 'largest-first' contradict each other; "),
        (["--policy", "fifo"], "'fifo' is not a policy"),
        (["--budget", "much"], "'much' is not a size"),
        (["--since", "soon"], "'soon' is not a moment"),
    ],
)
async def test_what_cannot_be_simulated(mlxctl: Ctl, arguments: list[str], said: str) -> None:
    ended = await mlxctl("simulate", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"mlxctl: {said}")
