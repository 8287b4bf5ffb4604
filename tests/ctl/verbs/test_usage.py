"""``mlxctl usage`` against a scripted log, as a process."""

import json

import pytest

from tests.ctl.conftest import Ctl
from tests.ctl.verbs.test_events import log
from tests.ctl.views import NOW_MS
from tests.fakes.control import open_scripted_control

pytestmark = pytest.mark.anyio


def line(seq: int, at_ms: int, requests: int) -> str:
    return (
        f'{{"seq":{seq},"at_ms":{at_ms},"cause":{{"command":"report_usage"}},"events":'
        f'[{{"type":"usage.recorded","v":1,"key":"k","model":"tiny","window_ms":60000,'
        f'"requests":{requests},"prompt_tokens":7,"completion_tokens":5,"busy_ms":900}}]}}'
    )


LINES = (line(1, NOW_MS - 7_200_000, 1), line(2, NOW_MS - 60_000, 2))


async def test_all_and_since(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, log(*LINES)):
        everything = await mlxctl("usage")
        lately = await mlxctl("usage", "--since", "1h", "--by", "model", "--json")
        wrong = await mlxctl("usage", "--since", "soon")

    assert (everything.code, everything.err) == (0, "")
    assert everything.out == (
        "DAY         MODEL  REQUESTS  READ  WRITTEN   BUSY  WAITED  LONGEST WAIT\n"
        "2026-09-21  tiny          3    14       10  1.8 s       0             -\n"
    )
    waits = {"waited": 0, "waited_ms": 0, "waited_max_ms": 0}
    counts = {"requests": 2, "prompt_tokens": 7, "completion_tokens": 5, "busy_ms": 900, **waits}
    assert json.loads(lately.out) == {
        "v": 1,
        "since_at_ms": NOW_MS + 2_000 - 3_600_000,
        "rows": [{"model": "tiny", **counts}],
        "total": counts,
    }
    assert (wrong.code, wrong.out) == (2, "")
