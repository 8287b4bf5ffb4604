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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "fifo"], "'fifo' is not a policy"),
        (["--budget", "much"], "'much' is not a size"),
        (["--since", "soon"], "'soon' is not a moment"),
    ],
)
async def test_what_cannot_be_simulated(mlxctl: Ctl, arguments: list[str], said: str) -> None:
    ended = await mlxctl("simulate", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"mlxctl: {said}")
