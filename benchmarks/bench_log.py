"""Times of the event log on this machine: append, sync, open, verify, replay, start-up.

    python -m benchmarks.bench_log [--records 1000000] [--events DIR] [--json]

Part of the topic ``pool`` of ``python -m benchmarks``, in a process of its own. Prints one
table. The log is built by the shipped code, as a pool under load writes it: models come, work
and go. Its files are in the page cache, so what is timed is the work of one core; the last
line is what no program in this language and format can go below: hashing and decoding the
same lines in a loop that checks nothing. With ``--events`` the log stays there, with a
snapshot at its end, for a daemon to be started on it.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from benchmarks.figures import Target
from daemon.eventlog.audit import verify
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.eventlog.record import Record
from daemon.kernel import BATCH_MAX
from daemon.pool.evolve import evolve
from daemon.pool.messages import (
    Candidate,
    Cause,
    DurableEvent,
    EvictFinished,
    EvictStarted,
    Limits,
    LoadReady,
    LoadStarted,
    Model,
    UsageRecorded,
    WorkerExited,
    WorkerSpawned,
)
from daemon.pool.state import STATE_VERSION, Pool

NOW_MS = 1_790_000_000_000
MODELS = 20
LIMITS = Limits(budget_bytes=48_000_000_000)


class Timing(msgspec.Struct, frozen=True):
    """One measurement; ``records`` is 0 where a rate says nothing.

    Attributes:
        at_least_per_s: What the rate is to reach, of processor time.
    """

    what: str
    wall_s: float
    cpu_s: float
    records: int = 0
    at_least_per_s: float | None = None

    @property
    def target(self) -> Target | None:
        bound = self.at_least_per_s
        return None if bound is None else Target(at_least=bound, of="ours")

    @property
    def per_s(self) -> float:
        """Records a second of processor time."""
        return self.records / self.cpu_s

    def __str__(self) -> str:
        rate = f"{self.per_s:12,.0f} records/s" if self.records else ""
        return f"{self.what:44} {self.wall_s:8.3f} s wall {self.cpu_s:8.3f} s cpu {rate}".rstrip()


class Report(msgspec.Struct, frozen=True):
    """Everything that was measured.

    Attributes:
        append_ms: Append, commit and sync one record, median.
        raw_ms: The same bytes written and synced raw.
        peak_rss_mb: Before the last two measurements.
    """

    records: int
    record_bytes: float
    segments: int
    timings: tuple[Timing, ...]
    append_ms: float
    raw_ms: float
    peak_rss_mb: float


def story(number: int) -> tuple[Cause, tuple[DurableEvent, ...]]:
    """One of six records in the life of a worker, one worker after the other."""
    life = number // 6
    name, worker = f"mlxd/model-{life % MODELS}", f"w{life + 1}"
    client = Cause(command="acquire", client="mlx-bridge", pid=812)
    model = Model(
        key=f"/models/{name}",
        name=name,
        path=f"/models/{name}",
        kind="text",
        capabilities=("text",),
        weights_bytes=4_000_000_000,
        kv_token_bytes=131_072,
        context_tokens=32_768,
    )
    mix: tuple[tuple[Cause, *tuple[DurableEvent, ...]], ...] = (
        (client, LoadStarted(
            model=model, worker=worker, claim_bytes=6_147_483_648, kv_tokens=16_384,
            rows_max=16, reason="acquire", asked_by=("mlx-bridge",))),
        (Cause(command="report_spawned"), WorkerSpawned(
            worker=worker, pid=4711, start_time=1_790_000_000.25, boot_id="b" * 36)),
        (Cause(command="report_ready"), LoadReady(
            worker=worker, model=name, measured_bytes=4_100_000_000, load_ms=2_300,
            context_tokens=32_768)),
        (Cause(command="report_usage"), UsageRecorded(
            key=model.key, model=name, window_ms=60_000, requests=12, prompt_tokens=9_000,
            completion_tokens=2_000, busy_ms=41_000,
            arrivals=tuple((offset * 5_000, 3_400) for offset in range(12)))),
        (client, EvictStarted(
            worker=worker, model=name, reason="memory", wanted="mlxd/other",
            needed_bytes=2_000_000_000, rule="lru",
            candidates=tuple(
                Candidate(model=f"m{n}", claim_bytes=1 << 32, last_used_at_ms=NOW_MS)
                for n in range(3)))),
        (Cause(command="report_exit"),
            WorkerExited(worker=worker, model=name, expected=True, exit_code=0),
            EvictFinished(worker=worker, model=name, freed_bytes=4_000_000_000)),
    )  # fmt: skip
    cause, *events = mix[number % len(mix)]
    return cause, tuple(events)


_USAGE = story(3)
"""Changes no pool, so that it may come at any time."""


def build(folder: Path, records: int) -> None:
    log, _ = EventLog.open(folder, OsDisk())
    for number in range(records):
        log.append(NOW_MS + number, *story(number))
        if number % BATCH_MAX == 0:
            log.commit(sync=False)
    log.commit(sync=True)
    log.close()


def timed(
    what: str, work: Callable[[], object], records: int = 0, at_least_per_s: float | None = None
) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Timing(what, wall, cpu, records, at_least_per_s)


def replay_all(folder: Path) -> None:
    log, _ = EventLog.open(folder, OsDisk(), writable=False)
    for _ in log.replay():
        pass


def believe_all(folder: Path) -> Pool:
    """What a start without any snapshot does."""
    pool = Pool(limits=LIMITS)
    log, _ = EventLog.open(folder, OsDisk(), writable=False)
    for record in log.replay():
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
    return pool


def floor(folder: Path) -> None:
    decode = msgspec.json.Decoder(Record).decode
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_bytes().splitlines():
            sha256(text).digest()
            decode(text)


def start_up(folder: Path) -> None:
    log, report = EventLog.open(folder, OsDisk(), state_version=STATE_VERSION)
    assert report.snapshot is not None
    for _ in log.replay(report.replay_after):
        pass
    log.close()


def sync_times(folder: Path, rounds: int = 200) -> tuple[float, float]:
    """Append, commit and sync one record, and the same bytes written and synced raw: ms."""
    log, report = EventLog.open(folder, OsDisk())
    segment = max(folder.glob("*.jsonl"))
    raw_file = folder.parent / "raw"
    shutil.copyfile(segment, raw_file)  # as large: a file system may treat sizes differently
    raw = OsDisk().open(raw_file, "existing")
    offset = segment.stat().st_size
    ours: list[float] = []
    theirs: list[float] = []
    text = b""

    def append() -> None:
        nonlocal text
        begin_s = time.perf_counter()
        log.append(report.end.at_ms, *_USAGE)
        (line,) = log.commit(sync=True)
        ours.append(time.perf_counter() - begin_s)
        text = line.text.encode() + b"\n"

    def write() -> None:
        nonlocal offset
        begin_s = time.perf_counter()
        offset += raw.write(offset, text)
        raw.sync()
        theirs.append(time.perf_counter() - begin_s)

    append()
    for number in range(rounds):
        for side in (append, write) if number % 2 else (write, append):
            side()
    log.close()
    raw.close()
    raw_file.unlink()
    return statistics.median(ours[1:]) * 1e3, statistics.median(theirs) * 1e3


def peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def measure(folder: Path, records: int) -> Report:
    """Build a log in ``folder`` and time what is done with it."""
    timings = [timed("build: append and commit", lambda: build(folder, records), records)]
    sizes = [path.stat().st_size for path in folder.iterdir()]
    timings += [
        timed("verify: hash, order and decode", lambda: verify(OsDisk(), folder), records),
        timed("open (hash all) and replay", lambda: replay_all(folder), records, 250_000),
        timed("open, replay and believe", lambda: believe_all(folder), records),
    ]
    append_ms, raw_ms = sync_times(folder)
    pool = believe_all(folder)
    log, _ = EventLog.open(folder, OsDisk())
    log.write_snapshot(log.position, msgspec.msgpack.encode(pool), STATE_VERSION)
    recent = log.position.seq - 10
    timings.append(timed("read_after a recent seq", lambda: list(log.read_after(recent))))
    log.close()
    timings.append(timed("open with a snapshot at the end", lambda: start_up(folder)))
    peak = peak_rss_mb()
    timings.append(timed("floor: hash and decode, nothing else", lambda: floor(folder), records))
    return Report(
        records, sum(sizes) / records, len(sizes), tuple(timings), append_ms, raw_ms, peak
    )


def show(report: Report) -> None:
    print(*report.timings, sep="\n")
    print(f"{report.record_bytes:.0f} bytes a record, {report.segments} segments")
    print(f"peak RSS before the floor: {report.peak_rss_mb:.1f} MB")
    print(
        f"append and sync one record: {report.append_ms:.3f} ms; raw write and sync: "
        f"{report.raw_ms:.3f} ms; ratio {report.append_ms / report.raw_ms:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--events", type=Path, help="keep the log here, which must be empty")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.events is not None:
        os.umask(0o077)
        report = measure(arguments.events, arguments.records)
    else:
        with tempfile.TemporaryDirectory(prefix="mlxd-bench-log-") as base:
            report = measure(Path(base) / "events", arguments.records)
    if arguments.json:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    else:
        show(report)


if __name__ == "__main__":
    main()
