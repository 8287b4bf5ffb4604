"""The event log, and a daemon that starts on a long one.

``bench_log`` measures the log in a process of its own, for its memory's sake.
"""

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.bench import Bench, in_thread
from benchmarks.bench_log import Report, Timing
from benchmarks.figures import Rounds, Row, Target, spread
from benchmarks.processes import child_environ, rss_mb, started
from benchmarks.service import fresh_home, started_daemon


class LogBenchFailed(Exception):
    """The child ended without a report; the message is what it said."""

    def __init__(self, log: Path) -> None:
        super().__init__(log.read_text("utf-8"))


async def rows(bench: Bench) -> list[Row]:
    """Rows about a log of a million records: written, read, and started on."""
    records = bench.fewer(1_000_000, 20_000)
    with fresh_home(bench, {}) as home:
        report = await _report(bench, home / "events", records)
        return [
            _append_row(report),
            *(_timing_row(timing) for timing in report.timings),
            *await _start_rows(bench, home, records),
        ]


def _append_row(report: Report) -> Row:
    return Row(
        what="append and sync one record",
        unit="ms",
        ours=spread([report.append_ms]),
        beside="raw write and sync",
        theirs=spread([report.raw_ms]),
        ratio=spread([report.append_ms / report.raw_ms]),
        target=Target(at_most=1.3),
        note="medians of 200, in turns",
    )


def _timing_row(timing: Timing) -> Row:
    note = f"{timing.wall_s:.3f} s wall, {timing.cpu_s:.3f} s of one core"
    if not timing.records:
        return Row(what=timing.what, unit="ms", ours=spread([timing.cpu_s * 1000]), note=note)
    return Row(
        what=timing.what,
        unit="records/s",
        ours=spread([timing.per_s]),
        target=timing.target,
        note=note,
    )


async def _start_rows(bench: Bench, home: Path, records: int) -> list[Row]:
    rounds = Rounds()
    for _ in range(bench.fewer(5, 2)):
        began_s = time.perf_counter()
        with started_daemon(bench, home) as daemon:
            rounds.add("ready", (time.perf_counter() - began_s) * 1000)
            async with daemon.control() as control:
                await control.status()
            rounds.add("rss", rss_mb(daemon.daemon_pid))
        rounds.add("python", await in_thread(_bare_python_ms))
        rounds.add("beyond", rounds.of("ready")[-1] - rounds.of("python")[-1])
    what = f"start on {records:,} records"
    snapshot = "the daemon, on a log with a snapshot at its end"
    return [
        rounds.beside(f"{what}: exec to ready", "ms", ("ready", "python"), "python -c pass"),
        rounds.alone(f"{what}: beyond the interpreter", "ms", "beyond", at_most=300, note=snapshot),
        rounds.alone(f"{what}: rss", "MB", "rss", at_most=48),
    ]


def _bare_python_ms() -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], env=child_environ({}), check=True)
    return (time.perf_counter() - began_s) * 1000


async def _report(bench: Bench, events: Path, records: int) -> Report:
    command = [sys.executable, "-m", "benchmarks.bench_log", "--records", str(records), "--json"]
    log = bench.log_of("bench_log")
    line = [*command, "--events", str(events)]
    with started(line, log, child_environ({}), talks=True) as process:
        assert process.stdout is not None
        said = await in_thread(process.stdout.readline)
    if not said:
        raise LogBenchFailed(log)
    return msgspec.json.decode(said, type=Report)
