"""The control plane: the daemon's answers, its decisions, its log."""

from benchmarks.bench import Bench
from benchmarks.figures import Table
from benchmarks.topics import control, deciding, log

NOTES = (
    "p50 and p99 are of one round's samples; shown are their medians over the rounds",
    "files of the log are in the page cache; its records/s are of one core's time",
    "a daemon's own memory is shown as the system counts it, shared pages included",
)


async def measure(bench: Bench) -> Table:
    """The table ``pool``."""
    rows = [*await control.rows(bench), *deciding.rows(bench), *await log.rows(bench)]
    return Table("pool", "the control plane: answers, decisions, the event log", tuple(rows), NOTES)
