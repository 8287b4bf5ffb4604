"""The control plane of a running daemon: round trips, leases, pipelining, adoption."""

import asyncio
import os
import shutil
import signal
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.client import user
from benchmarks.figures import Rounds, Row, Target, percentile
from benchmarks.folders import TOYS, stand_in_name
from benchmarks.service import Service, fresh_home, running_service, started_daemon
from daemon.wire.client import Control
from daemon.wire.control import GetStatus, Hello, LogRecord, WatchStarted
from daemon.wire.framing import encode_frame

LONG_TOKENS = 12_000
IN_FLIGHT = 128
"""Of the 256 requests that a connection may have in flight."""

ADOPTED = 5


async def rows(bench: Bench) -> list[Row]:
    """Rows about the daemon beside busy workers, alone, and after a kill."""
    return [*await _beside_workers(bench), *await _alone(bench), *await _adoption(bench)]


# --- status while workers compute -----------------------------------------------------


async def _beside_workers(bench: Bench) -> list[Row]:
    *generating, loading = TOYS
    rounds = Rounds()
    with running_service(bench, {name: bench.toy(name) for name in TOYS}) as service:
        servers = [await service.loaded(name) for name in generating]
        async with AsyncExitStack() as stack:
            for server in servers:
                request = server.chat(user(bench.prompts(1)[0]), LONG_TOKENS)
                stream = await stack.enter_async_context(server.opened(request))
                await stream.until_arrivals(10)
            for _ in range(bench.rounds):
                times = await _status_while_loading(bench, service, loading)
                rounds.add("p50", percentile(times, 50))
                rounds.add("p99", percentile(times, 99))
                rounds.add("asked", len(times))
    what = "status beside two streams and a load"
    note = f"{sum(rounds.of('asked')):,.0f} round trips, one after the other, as loads come and go"
    return [
        rounds.alone(f"{what}: p50", "ms", "p50", at_most=2),
        rounds.alone(f"{what}: p99", "ms", "p99", at_most=20, note=note),
    ]


async def _status_while_loading(bench: Bench, service: Service, model: str) -> list[float]:
    """Round trips of status, in milliseconds, while ``model`` is loaded."""
    times: list[float] = []
    async with service.control() as asking, service.control() as loading:
        for _ in range(bench.fewer(3, 1)):
            load = asyncio.ensure_future(loading.load(model))
            while not load.done():
                times.append(await _timed_status_ms(asking))
                await asyncio.sleep(0.002)
            await load
            await loading.unload(model)
    return times


async def _timed_status_ms(control: Control) -> float:
    began_s = time.perf_counter()
    await control.status()
    return (time.perf_counter() - began_s) * 1000


# --- a daemon that has nothing else to do ------------------------------------------------


async def _alone(bench: Bench) -> list[Row]:
    model = stand_in_name(0)
    rounds = Rounds()
    models = {model: bench.stand_in(0)}
    with (
        fresh_home(bench, models) as home,
        started_daemon(bench, home, stand_ins=True) as daemon,
    ):
        async with daemon.control() as control:
            await control.load(model)
            await _leases(control, model, 50)
            for _ in range(bench.rounds):
                times = await _leases(control, model, bench.fewer(2000, 200))
                rounds.add("p50", percentile(times, 50))
                rounds.add("p99", percentile(times, 99))
                count = bench.fewer(20_000, 2_000)
                rounds.add("piped", await _piped_per_s(daemon.socket, count))
    what = "acquire and release of a resident model"
    return [
        rounds.alone(f"{what}: p50", "ms", "p50"),
        rounds.alone(f"{what}: p99", "ms", "p99", at_most=1, note="both round trips together"),
        rounds.alone(
            f"status, pipelined, {IN_FLIGHT} in flight on one connection",
            "calls/s",
            "piped",
            at_least=5_000,
            note="the client counts answers and does not decode them",
        ),
    ]


async def _leases(control: Control, model: str, count: int) -> list[float]:
    """How long acquire and release take together, in milliseconds."""
    times = []
    for _ in range(count):
        began_s = time.perf_counter()
        granted = await control.acquire(model)
        await control.release(granted.lease)
        times.append((time.perf_counter() - began_s) * 1000)
    return times


async def _piped_per_s(socket: str, count: int) -> float:
    """Status calls a second while there are always :data:`IN_FLIGHT` under way."""
    async with _greeted(socket) as (reader, writer):
        requests = [encode_frame(GetStatus(id=number)) for number in range(1, count + 1)]
        began_s = time.perf_counter()
        sent = answered = 0
        while answered < count:
            while sent < count and sent - answered < IN_FLIGHT:
                upto = min(count, answered + IN_FLIGHT)
                writer.write(b"".join(requests[sent:upto]))
                sent = upto
            await _skip_frame(reader)
            answered += 1
        return count / (time.perf_counter() - began_s)


@asynccontextmanager
async def _greeted(
    socket: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(encode_frame(Hello(client="bench", pid=os.getpid())))
        await _skip_frame(reader)
        yield reader, writer
    finally:
        writer.close()


async def _skip_frame(reader: asyncio.StreamReader) -> None:
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    await reader.readexactly(size)


# --- a daemon that was killed ---------------------------------------------------------


async def _adoption(bench: Bench) -> list[Row]:
    models = _copies(bench)
    rounds = Rounds()
    for _ in range(bench.rounds):
        with fresh_home(bench, models) as home:
            await _restart_ms(bench, home, 0)  # a home's first start makes its folders
            rounds.add("empty", await _restart_ms(bench, home, 0))
            await _load_and_kill(bench, home, list(models))
            rounds.add("full", await _restart_ms(bench, home, ADOPTED))
    return [
        rounds.beside(
            f"kill -9 with {ADOPTED} workers: the next exec to all adopted",
            "ms",
            ("full", "empty"),
            "exec without workers",
            Target(at_most=500, of="ours"),
        ),
    ]


def _copies(bench: Bench) -> dict[str, Path]:
    """Folders of their own: one folder is one model, whatever it is called."""
    copies = {f"copy-{number}": bench.folder / f"copy-{number}" for number in range(ADOPTED)}
    for folder in copies.values():
        shutil.copytree(bench.stand_in(0), folder, dirs_exist_ok=True)
    return copies


async def _load_and_kill(bench: Bench, home: Path, models: list[str]) -> None:
    with started_daemon(bench, home, stand_ins=True) as daemon:
        async with daemon.control() as control:
            for model in models:
                await control.load(model)
        os.kill(daemon.daemon_pid, signal.SIGKILL)


async def _restart_ms(bench: Bench, home: Path, workers: int) -> float:
    """From the start of a daemon's process until it has adopted so many workers."""
    after = _records(home)
    began_s = time.perf_counter()
    with started_daemon(bench, home, stand_ins=True) as daemon:
        async with daemon.control() as control, control.watch(after) as answers:
            async for answer in answers:
                if isinstance(answer, WatchStarted) and not workers:
                    break
                workers -= isinstance(answer, LogRecord) and '"worker.adopted"' in answer.line
                if not workers:
                    break
            took_ms = (time.perf_counter() - began_s) * 1000
        os.kill(daemon.daemon_pid, signal.SIGKILL)
    return took_ms


def _records(home: Path) -> int:
    """How many records the log holds; nobody writes to it now."""
    segments = (home / "events").glob("*.jsonl")
    return sum(segment.read_bytes().count(b"\n") for segment in segments)
