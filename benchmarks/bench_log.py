"""Times of the event log on this machine: append, sync, open, verify, replay, start-up.

    python benchmarks/bench_log.py [--records 1000000] [--folder DIR]

Prints one table. The log is built by the shipped code from a mix of events like a busy
pool's. Its files are in the page cache, so what is timed is the work of one core; the
last line is what no program in this language and format can go below: hashing and
decoding the same lines in a loop that checks nothing.
"""

import argparse
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

from daemon.eventlog.audit import verify
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.eventlog.record import Record
from daemon.pool.messages import (
    Candidate,
    Cause,
    DurableEvent,
    EvictFinished,
    EvictStarted,
    LoadReady,
    LoadStarted,
    Model,
    UsageRecorded,
    WorkerSpawned,
)

NOW_MS = 1_790_000_000_000


def story(number: int) -> tuple[Cause, tuple[DurableEvent, ...]]:
    """One of six kinds of record, as a pool under load writes them."""
    name, worker = f"mlxd/model-{number % 20}", f"w{number}"
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
    mix: tuple[tuple[Cause, DurableEvent], ...] = (
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
        (Cause(command="report_exit"), EvictFinished(
            worker=worker, model=name, freed_bytes=4_000_000_000)),
    )  # fmt: skip
    cause, event = mix[number % len(mix)]
    return cause, (event,)


def build(folder: Path, records: int) -> None:
    log, _ = EventLog.open(folder, OsDisk())
    for number in range(records):
        log.append(NOW_MS + number, *story(number))
        if log.batch_full:
            log.commit(sync=False)
    log.commit(sync=True)
    log.close()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def line(what: str, seconds: tuple[float, float], records: int = 0) -> None:
    rate = f"{records / seconds[1]:12,.0f} records/s" if records else ""
    print(f"{what:44} {seconds[0]:8.3f} s wall {seconds[1]:8.3f} s cpu {rate}", flush=True)


def replay_all(folder: Path) -> None:
    log, _ = EventLog.open(folder, OsDisk(), writable=False)
    for _ in log.replay():
        pass


def floor(folder: Path) -> None:
    decode = msgspec.json.Decoder(Record).decode
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_bytes().splitlines():
            sha256(text).digest()
            decode(text)


def start_up(folder: Path) -> None:
    log, report = EventLog.open(folder, OsDisk())
    assert report.snapshot is not None
    for _ in log.replay(report.replay_after):
        pass
    log.close()


def sync_ratio(folder: Path, rounds: int = 200) -> None:
    """Append, commit and sync one record, beside the same bytes written and synced raw."""
    log, report = EventLog.open(folder, OsDisk())
    raw = OsDisk().open(folder.parent / "raw", "replace")
    ours: list[float] = []
    theirs: list[float] = []
    at_ms, offset = report.end.at_ms, 0
    for number in range(rounds):
        begin = time.perf_counter()
        log.append(at_ms, *story(number))
        (text,) = log.commit(sync=True)
        middle = time.perf_counter()
        offset += raw.write(offset, text.text.encode() + b"\n")
        raw.sync()
        theirs.append(time.perf_counter() - middle)
        ours.append(middle - begin)
    log.close()
    raw.close()
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"append and sync one record, median of {rounds}: {statistics.median(ours) * 1e3:.3f} ms; "
        f"raw write and sync: {statistics.median(theirs) * 1e3:.3f} ms; ratio {ratio:.2f}"
    )


def peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="mlxd-bench-log-"))
    folder, records = base / "events", arguments.records
    try:
        line("build: append and commit", timed(lambda: build(folder, records)), records)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(
            f"{'':44} {size / records:8.0f} bytes a record, {len(list(folder.iterdir()))} segments"
        )
        line("verify: hash, order and decode", timed(lambda: verify(OsDisk(), folder)), records)
        line("open (hash all) and replay", timed(lambda: replay_all(folder)), records)
        log, _ = EventLog.open(folder, OsDisk())
        log.write_snapshot(log.position, b"{}" * 10_000, 1)
        recent = log.position.seq - 10
        line("read_after a recent seq", timed(lambda: list(log.read_after(recent))))
        log.close()
        line("start-up with a snapshot at the end", timed(lambda: start_up(folder)))
        print(f"peak RSS so far: {peak_rss_mb():.1f} MB")
        line("floor: hash and decode, nothing else", timed(lambda: floor(folder)), records)
        sync_ratio(folder)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
