"""Beside a long stream: how long a newcomer waits, and how long the stream does."""

from contextlib import AsyncExitStack
from itertools import pairwise

from benchmarks.bench import Bench, Side
from benchmarks.client import Asked, Server, user
from benchmarks.figures import Rounds, Row, Target, percentile, spread
from benchmarks.peers import running_lm_server
from benchmarks.service import running_service
from benchmarks.sse import Arrival
from benchmarks.topics.first_token import first_tokens

LONG_TOKENS = 12_000
JOINING_CHARACTERS = 4_096
CHUNK_MS, CHUNK_STEPS = 15.0, 2.0
"""How much a step beside running streams may grow for a prompt (daemon/worker/engines/pace.py)."""

_WARM_ARRIVALS = 30


async def on_the_toy(bench: Bench) -> list[Row]:
    """Real prefill and decode: ours beside mlx_lm.server."""
    folder = bench.toy()
    async with AsyncExitStack() as stack:
        service = stack.enter_context(running_service(bench, {"toy": folder}))
        peer = await stack.enter_async_context(running_lm_server(bench, folder))
        servers = [await service.loaded("toy"), peer]
        for server in servers:
            await server.ask_all(bench.prompts(32), 4)
            await server.ask(user(bench.long_prompt(JOINING_CHARACTERS)), 4)
        return [
            *await first_tokens(bench, servers),
            *await late_joins(bench, servers),
            *await _long_joins(bench, servers),
        ]


async def late_joins(bench: Bench, servers: list[Server], step_ms: int | None = None) -> list[Row]:
    """TTFT beside a long stream, and how much longer that is than alone.

    Args:
        step_ms: A decode step of the stand-in, which has no prefill; None where steps are
            measured and prompts computed.
    """
    rounds = Rounds()
    await bench.interleave([_join(bench, server, rounds) for server in servers])
    ours, *peers = servers
    rows = []
    for server in servers:
        step = spread(rounds.of(f"{server.name} step")).median if step_ms is None else step_ms
        chunk = max(CHUNK_MS, CHUNK_STEPS * step) if step_ms is None else 0.0
        label = f"{ours.model}: late join, ttft p50 beyond alone"
        rows.append(
            Row(
                what=label if server is ours else f"{label}: {server.name}",
                unit="ms",
                ours=spread(rounds.of(f"{server.name} more")),
                target=Target(at_most=step + chunk, of="ours") if server is ours else None,
                note=f"a step takes {step:.1f} ms, a chunk at most {chunk:.0f} ms more"
                if server is ours
                else "",
            )
        )
    names = (f"{ours.name} late", f"{ours.name} alone")
    rows.append(rounds.beside(f"{ours.model}: late join, ttft p50", "ms", names, "alone"))
    for peer in peers:
        names = (f"{ours.name} late", f"{peer.name} late")
        rows.append(rounds.beside(f"{ours.model}: late join, ttft p50", "ms", names, peer.name))
    return rows


def _join(bench: Bench, server: Server, rounds: Rounds) -> Side:
    async def side() -> None:
        count = bench.fewer(20, 6)
        alone = [await _ask(bench, server) for _ in range(count)]
        async with server.opened(server.chat(user(bench.prompts(1)[0]), LONG_TOKENS)) as stream:
            await stream.until_arrivals(_WARM_ARRIVALS)
            late = [await _ask(bench, server) for _ in range(count)]
            rounds.add(f"{server.name} step", percentile(_gaps_ms(stream.arrivals), 50))
        medians = [percentile([answer.ttft_ms for answer in each], 50) for each in (late, alone)]
        rounds.add(f"{server.name} late", medians[0])
        rounds.add(f"{server.name} alone", medians[1])
        rounds.add(f"{server.name} more", medians[0] - medians[1])

    return side


async def _ask(bench: Bench, server: Server) -> Asked:
    return await server.ask(user(bench.prompts(1)[0]), 2)


async def _long_joins(bench: Bench, servers: list[Server]) -> list[Row]:
    rounds = Rounds()
    await bench.interleave([_long_join(bench, server, rounds) for server in servers])
    ours, peer = servers
    step = spread(rounds.of(f"{ours.name} step")).median
    chunk = spread(rounds.of(f"{ours.name} most")).median
    what = "toy: longest gap while a 4,096-token prompt joins"
    return [
        rounds.beside(
            "toy: typical gap while a 4,096-token prompt joins",
            "ms",
            (f"{ours.name} typical", f"{ours.name} step"),
            "a step alone",
            note="a step and a chunk; chunks have 16 tokens or more, however slow the machine is",
        ),
        rounds.alone(
            what,
            "ms",
            f"{ours.name} gap",
            at_most=round(2 * step + chunk, 1),
            note="the bound: 3 steps and a chunk at the prompt's end, where it attends to all of "
            "it, as the 90th percentile of the gaps shows it",
        ),
        rounds.beside(what, "ms", (f"{ours.name} gap", f"{peer.name} gap"), peer.name),
        rounds.beside(
            "toy: ttft of that prompt, beside the stream",
            "ms",
            (f"{ours.name} ttft", f"{peer.name} ttft"),
            peer.name,
        ),
    ]


def _long_join(bench: Bench, server: Server, rounds: Rounds) -> Side:
    async def side() -> None:
        async with server.opened(server.chat(user(bench.prompts(1)[0]), LONG_TOKENS)) as stream:
            await stream.until_arrivals(2 * _WARM_ARRIVALS)
            step_ms = percentile(_gaps_ms(stream.arrivals), 50)
            before = len(stream.arrivals)
            joined = await server.ask(user(bench.long_prompt(JOINING_CHARACTERS)), 4)
            await stream.until_arrivals(len(stream.arrivals) + 1)
            during = stream.arrivals[before - 1 :]
        rounds.add(f"{server.name} step", step_ms)
        rounds.add(f"{server.name} typical", percentile(_gaps_ms(during), 50))
        rounds.add(f"{server.name} most", percentile(_gaps_ms(during), 90))
        rounds.add(f"{server.name} gap", max(_gaps_ms(during)))
        rounds.add(f"{server.name} ttft", joined.ttft_ms)

    return side


def _gaps_ms(arrivals: list[Arrival]) -> list[float]:
    return [(later - sooner) * 1000 for (sooner, _), (later, _) in pairwise(arrivals)]
