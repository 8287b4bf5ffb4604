"""The event log: see ``bench_log``, which runs in a process of its own for its memory's sake."""

import sys
from pathlib import Path

import msgspec

from benchmarks.bench import Bench, in_thread
from benchmarks.bench_log import Report
from benchmarks.figures import Row, Table, Target, spread
from benchmarks.processes import child_environ, started


class LogBenchFailed(Exception):
    """The child ended without a report; the message is what it said."""

    def __init__(self, log: Path) -> None:
        super().__init__(log.read_text("utf-8"))


async def measure(bench: Bench) -> Table:
    """The table ``log``."""
    records = bench.fewer(1_000_000, 20_000)
    report = await _report(bench, records)
    rows = [
        Row(
            what=timing.what,
            unit="s cpu",
            ours=spread([timing.cpu_s]),
            target=None
            if timing.at_most_s is None or records < 1_000_000
            else Target(at_most=timing.at_most_s, of="ours"),
            note=f"{timing.wall_s:.3f} s wall",
        )
        for timing in report.timings
    ]
    rows.append(
        Row(
            what="append and sync one record",
            unit="ms",
            ours=spread([report.append_ms]),
            beside="raw write and sync",
            theirs=spread([report.raw_ms]),
            ratio=spread([report.append_ms / report.raw_ms]),
            note="medians of 200",
        )
    )
    rows.append(Row(what="peak rss", unit="MB", ours=spread([report.peak_rss_mb])))
    title = f"the event log, {report.records:,} records of {report.record_bytes:.0f} bytes"
    return Table("log", title, tuple(rows), ("single measurements, files in the page cache",))


async def _report(bench: Bench, records: int) -> Report:
    command = [sys.executable, "-m", "benchmarks.bench_log", "--records", str(records), "--json"]
    log = bench.log_of("bench_log")
    line = [*command, "--folder", str(bench.folder)]
    with started(line, log, child_environ({}), talks=True) as process:
        assert process.stdout is not None
        said = await in_thread(process.stdout.readline)
    if not said:
        raise LogBenchFailed(log)
    return msgspec.json.decode(said, type=Report)
