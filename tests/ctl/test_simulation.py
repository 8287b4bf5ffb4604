"""A comparison as people see it."""

from datetime import UTC

import msgspec

from ctl.plain import plain
from ctl.simulation import Comparison, simulation_page
from daemon.pool.shapes import Waits
from daemon.pool.simulate import Outcome, Rules
from daemon.simulation import Comparison as Told
from tests.ctl.views import NOW_MS

TOLD = Told(
    since_at_ms=NOW_MS - 3_600_000,
    until_at_ms=NOW_MS,
    rules=Rules(budget_bytes=24_000_000_000, policy="largest_first", ttl_ms=600_000),
    recorded=Outcome(requests=1_200, loads=9, loading_ms=12_300, evictions=7, peak_bytes=10**9),
    replayed=Outcome(waits=Waits(requests=9, total_ms=20_000, longest_ms=2_500), requests=1_190),
    simulated=Outcome(waits=Waits(), requests=1_190, expiries=3),
    dropped=10,
)


def page(told: Told) -> str:
    sent = msgspec.json.encode({"v": 1, **msgspec.to_builtins(told)})
    return plain(simulation_page(msgspec.json.decode(sent, type=Comparison), UTC))


def test_three_columns() -> None:
    assert page(TOLD).splitlines() == [
        "From 2026-09-21 13:13 to 2026-09-21 14:13: policy largest-first, TTL 10m, budget 24.0 GB",
        "",
        "                     HAPPENED  REPLAYED  SIMULATED",
        "requests                1,200     1,190      1,190",
        "refused                     0         0          0",
        "waited                      -         9          0",
        "waited in all               -    20.0 s       0 ms",
        "longest wait                -     2.5 s       0 ms",
        "loads                       9         0          0",
        "time spent loading     12.3 s      0 ms       0 ms",
        "evictions                   7         0          0",
        "unloads by TTL              0         0          3",
        "most memory claimed   1.00 GB       0 B        0 B",
        "",
        "HAPPENED is what the log says.",
        "REPLAYED puts the same demand through the pool's rules as they were: where it is",
        "near HAPPENED, SIMULATED can be believed.",
        "10 requests without a recorded time could not be simulated.",
    ]


def test_rules_left_as_they_were() -> None:
    told = msgspec.structs.replace(TOLD, rules=Rules(), dropped=0)

    assert page(told).splitlines()[0].endswith(": policy lru, budget as it was")
    assert page(told).endswith("can be believed.\n")
