"""The second turn of a conversation: is the first one's work kept?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.bench import Bench, Side
from benchmarks.client import Server, user
from benchmarks.figures import Rounds, Row, Table, Target, spread
from benchmarks.peers import running_lm_server
from benchmarks.service import running_service

TOKENS = 2_000
CHARACTERS_A_TOKEN = {"toy": 1.0}
"""The toys' tokenizer has a token a byte; English words of real ones take more."""

REAL_CHARACTERS_A_TOKEN = 4.4
DISK_BYTES = 4 << 30
_LOOK_EVERY_S = 0.05


async def measure(bench: Bench) -> Table:
    """The table ``prefix``."""
    models = {"toy": bench.toy()}
    if (real := bench.real()) is not None and not bench.quick:
        models[real.name] = real
    rows: list[Row] = []
    for name, folder in models.items():
        rounds = Rounds()
        async with _servers(bench, name, folder) as servers:
            sides = [_turns(bench, name, server, rounds) for server in servers]
            await bench.interleave(sides, bench.rounds if name == "toy" else min(2, bench.rounds))
        rows += _rows(name, rounds)
        rows.append(await _after_a_reload(bench, name, folder))
    note = "a new conversation each time; TTFT from dialling to the first text"
    return Table("prefix", f"second turn of a {TOKENS:,}-token conversation", tuple(rows), (note,))


@asynccontextmanager
async def _servers(bench: Bench, name: str, folder: Path) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        service = stack.enter_context(running_service(bench, {name: folder}))
        ours = await service.loaded(name)
        yield [ours, await stack.enter_async_context(running_lm_server(bench, folder))]


async def _after_a_reload(bench: Bench, name: str, folder: Path) -> Row:
    """The second turn once the model was unloaded and loaded again, prompts kept on disk."""
    rounds = Rounds()
    with running_service(bench, {name: folder}, disk_bytes=DISK_BYTES) as service:
        for _ in range(bench.rounds if name == "toy" else min(2, bench.rounds)):
            server = await service.loaded(name)
            before, talk = _blocks(service.home), _opening(bench, name)
            first = await server.ask(talk, 16)
            await _written(service.home, before, first.said.prompt_tokens)
            async with service.control() as control:
                await control.unload(name)
            server = await service.loaded(name)
            await server.ask(user("Ping"), 2)
            talk += [{"role": "assistant", "content": first.said.text}, *user("Go on, please.")]
            second = await server.ask(talk, 16)
            rounds.add("first", first.ttft_ms)
            rounds.add("second", second.ttft_ms)
    return rounds.beside(
        f"{name}: second turn after unload and reload, TTFT",
        "ms",
        ("second", "first"),
        "first turn",
        Target(at_most=0.3),
        note="with [worker] prefix_disk_bytes",
    )


async def _written(home: Path, before: set[str], tokens: int) -> None:
    """Wait until the worker has put a prompt of so many tokens on disk."""
    while not any(int(name.split("-")[1]) >= tokens for name in _blocks(home) - before):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)


def _blocks(home: Path) -> set[str]:
    return {file.name for file in (home / "cache" / "prefix").glob("*/*-*-*-*")}


def _opening(bench: Bench, name: str) -> list[dict[str, str]]:
    characters = TOKENS * CHARACTERS_A_TOKEN.get(name, REAL_CHARACTERS_A_TOKEN)
    return user(bench.long_prompt(round(characters)))


def _turns(bench: Bench, name: str, server: Server, rounds: Rounds) -> Side:
    async def side() -> None:
        talk = _opening(bench, name)
        first = await server.ask(talk, 16)
        talk += [{"role": "assistant", "content": first.said.text}, *user("Go on, please.")]
        second = await server.ask(talk, 16)
        rounds.add(f"{server.name} first", first.ttft_ms)
        rounds.add(f"{server.name} second", second.ttft_ms)
        rounds.add(f"{server.name} prompt", first.said.prompt_tokens)
        rounds.add(f"{server.name} cached", second.said.cached_tokens / second.said.prompt_tokens)

    return side


def _rows(name: str, rounds: Rounds) -> list[Row]:
    tokens = rounds.of("mlxd prompt")[0]
    return [
        rounds.beside(
            f"{name}: second turn, TTFT",
            "ms",
            ("mlxd second", "mlxd first"),
            "first turn",
            Target(at_most=0.15),
            note=f"{tokens:,.0f} prompt tokens in the first turn",
        ),
        rounds.beside(
            f"{name}: second turn, TTFT",
            "ms",
            ("mlxd second", "mlx_lm.server second"),
            "mlx_lm.server",
        ),
        Row(
            what=f"{name}: prompt tokens found in the cache, by usage",
            unit="of all",
            ours=spread(rounds.of("mlxd cached")),
        ),
    ]
