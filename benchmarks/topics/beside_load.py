"""A stream of A while B loads: does the load cost A its pace, or others their answers?"""

import asyncio
import time

import msgspec

from benchmarks.bench import Bench
from benchmarks.client import Server, user
from benchmarks.figures import Rounds, Row, Target, percentile
from benchmarks.service import Service, running_service
from daemon.wire.client import Control
from daemon.wire.control import Progress

LONG_TOKENS = 12_000
ASK_EVERY_S = 0.05


class _Seen(msgspec.Struct):
    """What happened while B was loading; times in milliseconds.

    Attributes:
        loading_after_ms: From the request for B to the daemon's word that it loads.
    """

    seconds: float
    loading_after_ms: float
    health_ms: list[float]
    status_ms: list[float]


async def measure(bench: Bench) -> list[Row]:
    """Rows about the toy's stream and a load beside it."""
    real = bench.real()
    other, folder = ("toy-2", bench.toy("toy-2")) if real is None else (real.name, real)
    rounds = Rounds()
    with running_service(bench, {"toy": bench.toy(), other: folder}) as service:
        server = await service.loaded("toy")
        for _ in range(bench.rounds):
            await _round(service, server, other, rounds)
    what = f"toy's stream while {other} loads"
    return [
        rounds.beside(f"{what}: pace", "tok/s", ("beside", "alone"), "alone", Target(at_least=0.8)),
        rounds.alone(f"{what}: /healthz p99", "ms", "health", at_most=50),
        rounds.alone(f"{what}: status p99", "ms", "status", at_most=50),
        rounds.alone(f"{what}: request for it to its load's begin", "ms", "loading after"),
    ]


async def _round(service: Service, server: Server, other: str, rounds: Rounds) -> None:
    async with (
        service.control() as control,
        server.opened(server.chat(user("Tell me everything."), LONG_TOKENS)) as stream,
    ):
        await stream.until_arrivals(30)
        first, first_s = len(stream.arrivals), time.perf_counter()
        await stream.until_arrivals(first + 400)
        alone = (len(stream.arrivals) - first) / (time.perf_counter() - first_s)
        first = len(stream.arrivals)
        seen = await _load(control, server, other)
        rounds.add("beside", (len(stream.arrivals) - first) / seen.seconds)
        rounds.add("alone", alone)
    rounds.add("loading after", seen.loading_after_ms)
    rounds.add("health", percentile(seen.health_ms, 99))
    rounds.add("status", percentile(seen.status_ms, 99))
    async with service.control() as control:
        await control.unload(other)


async def _load(control: Control, server: Server, model: str) -> _Seen:
    """Load ``model`` while health and status are asked again and again."""
    seen = _Seen(0.0, 0.0, [], [])
    began_s = time.perf_counter()

    def note(progress: Progress) -> None:
        if progress.phase == "loading" and not seen.loading_after_ms:
            seen.loading_after_ms = (time.perf_counter() - began_s) * 1000

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask_around(control, server, seen))
        async with control.lease(model, on_progress=note):
            seen.seconds = time.perf_counter() - began_s
        asking.cancel()
    return seen


async def _ask_around(control: Control, server: Server, seen: _Seen) -> None:
    while True:
        _, health_ms = await server.get("/healthz")
        began_s = time.perf_counter()
        await control.status()
        seen.health_ms.append(health_ms)
        seen.status_ms.append((time.perf_counter() - began_s) * 1000)
        await asyncio.sleep(ASK_EVERY_S)
