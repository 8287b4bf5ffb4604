"""The page of ``load --estimate``: every number that the verdict follows from."""

from typing import Any

import msgspec
import pytest

from ctl.estimate import estimate_page
from ctl.plain import plain
from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.views import NOW_MS

GB = 10**9
MB = 10**6


def told(**fields: Any) -> c.LoadEstimate:
    base = c.LoadEstimate(
        id=0,
        model="big",
        verdict="loads",
        weights_bytes=4 * GB,
        overhead_bytes=200 * MB,
        kv_tokens=16_384,
        kv_token_bytes=100_000,
        kv_bytes=1_638_400_000,
        claim_bytes=5_838_400_000,
        measured_bytes=None,
        budget_bytes=24 * GB,
        residue_bytes=0,
        committed_bytes=9 * GB,
        needed_bytes=0,
        rule="",
        considered=(),
        load_ms=30_000,
        learned=False,
        over_budget=False,
        passed_over=(),
        reason="",
        fault=None,
        now_ms=NOW_MS,
    )
    return msgspec.structs.replace(base, **fields)


def test_the_sum_and_that_it_fits() -> None:
    assert plain(estimate_page(told())) == (
        "Loading big would take 5.84 GB\n"
        "\n"
        "weights    4.00 GB  from the files\n"
        "KV cache   1.64 GB  16,384 tokens of 100 kB each\n"
        "overhead    200 MB  a worker without its weights; it was never loaded before\n"
        "claim      5.84 GB  reserved before it is loaded\n"
        "budget     24.0 GB\n"
        "committed  9.00 GB  to models in memory, loading and leaving\n"
        "free       15.0 GB\n"
        "\n"
        "It fits: it would be loaded at once.\n"
        "It was never loaded before: 30.0 s is assumed.\n"
    )


def test_a_draft_is_in_the_sum() -> None:
    page = plain(estimate_page(told(draft="/models/small")))
    assert "weights    4.00 GB  from the files, with those of its draft /models/small\n" in page


def test_who_would_go_and_who_stays_and_why() -> None:
    seen = (
        c.Considered(model="old", claim_bytes=9 * GB, last_used_at_ms=NOW_MS - 60_000, goes=True),
        c.Considered(
            model="dear", claim_bytes=2 * GB, last_used_at_ms=NOW_MS - 3_000, why_not="pinned"
        ),
        c.Considered(model="small", claim_bytes=1 * GB, last_used_at_ms=NOW_MS),
    )
    page = plain(
        estimate_page(
            told(
                verdict="evicts",
                rule="lru: coldest single model that frees enough",
                needed_bytes=3 * GB,
                considered=seen,
                committed_bytes=25 * GB,
                residue_bytes=2 * GB,
                measured_bytes=4_100_000_000,
                learned=True,
                load_ms=7_000,
                passed_over=("first: its files are broken",),
            )
        )
    )

    assert "overhead    200 MB  a worker without its weights; last time it held 4.10 GB\n" in page
    assert "budget     24.0 GB  less 2.00 GB that ended workers still hold\n" in page
    assert "over       1.00 GB\n" in page
    assert page.endswith(
        "It would be loaded after evicting old to free 3.00 GB (rule lru: coldest single model "
        "that frees enough).\n"
        "It took 7.0 s last time, once its process had started.\n"
        "\n"
        "IN MEMORY     SIZE  LAST USED\n"
        "old        9.00 GB     1m ago  would go\n"
        "dear       2.00 GB  3.0 s ago  stays: pinned\n"
        "small      1.00 GB   0 ms ago  could go\n"
        "Passed over: first: its files are broken\n"
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"verdict": "resident"}, "It is in memory already."),
        ({"verdict": "loading"}, "It is being loaded already."),
        (
            {"verdict": "loads", "over_budget": True},
            "It does not fit; with --over-budget it would be loaded all the same.",
        ),
        (
            {"verdict": "waits", "reason": "another model is being loaded; ask again"},
            "It would wait: another model is being loaded; ask again.",
        ),
        (
            {
                "verdict": "refused",
                "fault": Fault(code=Code.OVER_BUDGET, message="big needs 90 GB; raise pool.memory"),
            },
            "It would be refused (over_budget): big needs 90 GB; raise pool.memory.",
        ),
    ],
)
def test_verdicts(fields: dict[str, Any], says: str) -> None:
    assert says in plain(estimate_page(told(**fields))).splitlines()
