"""What surrounds a decode step: first tokens, late joiners, gaps, and loads next door."""

from benchmarks.bench import Bench
from benchmarks.figures import Row, Table
from benchmarks.folders import STEPS_MS, stand_in_name
from benchmarks.service import running_service
from benchmarks.topics import beside_load, first_token, joining

NOTES = (
    (
        "ttft: from dialling to the first text; 32 at once is 32 connections at the same moment, "
        "with room for 32 rows on both sides"
    ),
    "p50, p95 and p99 are of one round's samples; shown are their medians over the rounds",
    (
        "a late joiner may wait one step and one prefill chunk more than alone; the chunk beside "
        "running streams is bounded by 15 ms or two steps, whichever is more"
    ),
)


async def measure(bench: Bench) -> Table:
    """The table ``service``."""
    rows: list[Row] = []
    stand_ins = {stand_in_name(step_ms): bench.stand_in(step_ms) for step_ms in STEPS_MS}
    with running_service(bench, stand_ins, stand_ins=True) as service:
        rows += await first_token.overhead(bench, service)
        for step_ms in STEPS_MS[1:]:
            server = await service.loaded(stand_in_name(step_ms))
            rows += await first_token.first_tokens(bench, [server])
            rows += await joining.late_joins(bench, [server], step_ms)
    rows += await joining.on_the_toy(bench)
    rows += await beside_load.measure(bench)
    return Table("service", "what surrounds a decode step", tuple(rows), NOTES)
