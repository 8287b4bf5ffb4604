"""Time to a first token on a resident model: alone, and 32 at once."""

import time

from benchmarks.bench import Bench, Side
from benchmarks.client import Server
from benchmarks.figures import Rounds, Row, Target, percentile
from benchmarks.folders import stand_in_name
from benchmarks.service import Service
from daemon.wire.client import Control
from daemon.wire.control import Granted
from daemon.wire.data import ChatMessage, Generate, TextPart
from daemon.wire.generation import generate

AT_ONCE = 32


async def overhead(bench: Bench, service: Service) -> list[Row]:
    """Acquire, connect and first delta over the sockets; the stand-in's step takes no time."""
    model = stand_in_name(0)
    await service.loaded(model)
    rounds = Rounds()
    async with service.control() as control:
        for _ in range(20):
            await _first_delta_ms(control, model)
        for _ in range(bench.rounds):
            count = bench.fewer(400, 100)
            times = [await _first_delta_ms(control, model) for _ in range(count)]
            rounds.add("p50", percentile(times, 50))
            rounds.add("p99", percentile(times, 99))
    what = "acquire + connect + first delta, no step time"
    return [
        rounds.alone(f"{what}: p50", "ms", "p50", at_most=3),
        rounds.alone(f"{what}: p99", "ms", "p99", at_most=8),
    ]


async def _first_delta_ms(control: Control, model: str) -> float:
    def make(granted: Granted) -> Generate:
        message = ChatMessage(role="user", parts=(TextPart(text="hello"),))
        return Generate(lease=granted.lease, messages=(message,), max_tokens=4)

    began_s = time.perf_counter()
    async with generate(control, model, make, client="bench") as (_, generation):
        took_s = None
        async for _ in generation.batches():
            took_s = took_s or time.perf_counter() - began_s
    assert took_s is not None
    return took_s * 1000


async def first_tokens(bench: Bench, servers: list[Server]) -> list[Row]:
    """TTFT over HTTP, one by one and 32 at once; ``servers`` begins with ours."""
    rounds = Rounds()
    await bench.interleave([_ttft(bench, server, rounds) for server in servers])
    ours, *peers = servers
    label = ours.model or ""
    rows = [
        rounds.alone(f"{label}: ttft alone, p50", "ms", f"{ours.name} alone p50"),
        rounds.alone(f"{label}: ttft alone, p95", "ms", f"{ours.name} alone p95"),
        rounds.beside(
            f"{label}: ttft of 32 at once, p95",
            "ms",
            (f"{ours.name} many p95", f"{ours.name} many p50"),
            "its p50",
            Target(at_most=2),
        ),
    ]
    for peer in peers:
        for figure in ("alone p50", "many p50", "many p95"):
            what = f"{label}: ttft {figure.replace('many', 'of 32 at once,')}"
            names = (f"{ours.name} {figure}", f"{peer.name} {figure}")
            rows.append(rounds.beside(what, "ms", names, peer.name))
    return rows


def _ttft(bench: Bench, server: Server, rounds: Rounds) -> Side:
    async def side() -> None:
        alone = []
        for prompt in bench.prompts(bench.fewer(30, 10)):
            (answer,) = await server.ask_all([prompt], 2)
            alone.append(answer.ttft_ms)
        many = [answer.ttft_ms for answer in await server.ask_all(bench.prompts(AT_ONCE), 16)]
        for name, times in (("alone", alone), ("many", many)):
            for percent in (50, 95):
                rounds.add(f"{server.name} {name} p{percent}", percentile(times, percent))

    return side
