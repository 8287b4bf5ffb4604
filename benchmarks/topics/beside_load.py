"""A stream of A while B loads: does the load cost A its pace, or others their answers?"""

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.client import Server, Stream, user
from benchmarks.figures import Rounds, Row, Target, percentile
from benchmarks.service import Service, running_service
from daemon.wire.client import Control
from daemon.wire.control import Progress

LONG_TOKENS = 12_000
ASK_EVERY_S = 0.05
ALONE_ARRIVALS = 400


class _Seen:
    """What is seen in all rounds; times in milliseconds."""

    def __init__(self) -> None:
        self.rounds = Rounds()
        self.health_ms: list[float] = []
        self.status_ms: list[float] = []


async def measure(bench: Bench) -> list[Row]:
    """Rows about the toy's stream and a load beside it."""
    real = bench.real()
    other, folder = ("toy-2", bench.toy("toy-2")) if real is None else (real.name, real)
    seen = _Seen()
    with running_service(bench, {"toy": bench.toy(), other: folder}) as service:
        server = await service.loaded("toy")
        for _ in range(bench.rounds):
            await _round(bench, service, server, other, seen)
    rounds = seen.rounds
    rounds.add("health", percentile(seen.health_ms, 99))
    rounds.add("status", percentile(seen.status_ms, 99))
    what = f"toy's stream while {other} loads"
    asked = f"of {len(seen.health_ms)}, all rounds together"
    return [
        rounds.beside(f"{what}: pace", "tok/s", ("beside", "alone"), "alone", Target(at_least=0.8)),
        rounds.alone(f"{what}: /healthz p99", "ms", "health", at_most=50, note=asked),
        rounds.alone(f"{what}: status p99", "ms", "status", at_most=50, note=asked),
        rounds.alone(f"{what}: request for it to its load's begin", "ms", "begin"),
    ]


async def _round(bench: Bench, service: Service, server: Server, other: str, seen: _Seen) -> None:
    async with (
        service.control() as control,
        server.opened(server.chat(user(bench.prompts(1)[0]), LONG_TOKENS)) as stream,
    ):
        await stream.until_arrivals(30)
        before = await _pace(stream)
        meter = _Meter(stream)
        await _load(control, server, other, seen)
        seen.rounds.add("beside", meter.tokens_per_s())
        # A step takes longer the longer the stream is: alone is halfway between the two.
        seen.rounds.add("alone", (before + await _pace(stream)) / 2)
    async with service.control() as control:
        await control.unload(other)


async def _pace(stream: Stream) -> float:
    """Tokens a second of a stream that has the machine to itself."""
    meter = _Meter(stream)
    await stream.until_arrivals(len(stream.arrivals) + ALONE_ARRIVALS)
    return meter.tokens_per_s()


class _Meter:
    """Tokens of a stream from now on: an event each, though several may come at once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._first = len(stream.arrivals)
        self._began_s = time.perf_counter()

    def tokens_per_s(self) -> float:
        took_s = time.perf_counter() - self._began_s
        return sum(d.count(b"data: ") for _, d in self._stream.arrivals[self._first :]) / took_s


async def _load(control: Control, server: Server, model: str, seen: _Seen) -> None:
    """Load ``model`` while health and status are asked again and again."""
    began_s = time.perf_counter()
    loading: list[float] = []

    def note(progress: Progress) -> None:
        if progress.phase == "loading" and not loading:
            loading.append((time.perf_counter() - began_s) * 1000)

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask_around(control, server, seen))
        async with control.lease(model, on_progress=note):
            asking.cancel()
    seen.rounds.add("begin", loading[0])


async def _ask_around(control: Control, server: Server, seen: _Seen) -> None:
    while True:
        _, health_ms = await server.get("/healthz")
        began_s = time.perf_counter()
        await control.status()
        seen.health_ms.append(health_ms)
        seen.status_ms.append((time.perf_counter() - began_s) * 1000)
        await asyncio.sleep(ASK_EVERY_S)
