"""Tokens a second through HTTP, beside the library alone and two other servers."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from benchmarks.bench import Bench, Pace, Side
from benchmarks.client import Server
from benchmarks.figures import Rounds, Row, Table, Target, spread
from benchmarks.peers import running_lm_server, running_vlm_server
from benchmarks.processes import cpu_ms
from benchmarks.raw import Raw, running_raw
from benchmarks.service import running_service

STREAMS = (1, 4, 16)
BOUNDED_TOKENS = 100


class Subject(msgspec.Struct, frozen=True):
    """A model and what is wanted of it.

    Attributes:
        raw: Lowest ratio to the library alone, by streams.
        lm: Lowest ratio to mlx_lm.server, by streams.
        peers: Whether other servers can run it.
    """

    name: str
    folder: Path
    tokens: int
    rounds: int
    raw: dict[int, float]
    lm: dict[int, float]
    peers: bool = True


async def measure(bench: Bench) -> Table:
    """The table ``http``."""
    rows: list[Row] = []
    notes = [
        (
            "tokens/s: all tokens by the wall time from the first request to the last byte, "
            "prompts included, on both sides; in-process is stream_generate at 1 stream, "
            "BatchGenerator without detokenizing at more"
        ),
        "every prompt is new, so that nobody's prefix cache helps",
        "cpu rows: over all rounds; /proc counts in steps of 10 ms",
        "client: processor time of this bench's own client a token, which shares the cores",
    ]
    for subject in _subjects(bench):
        rows += await _rows_of(bench, subject)
    if bench.real() is None:
        notes.append("no real model: run `make models` first")
    return Table("http", "tokens/s through HTTP", tuple(rows), tuple(notes))


def _subjects(bench: Bench) -> list[Subject]:
    slow = {1: 0.97, 4: 0.95, 16: 0.95}
    tokens, rounds = bench.fewer(256, 48), bench.rounds
    subjects = [
        Subject("toy", bench.toy(), tokens, rounds, {1: 0.85, 16: 0.90}, {16: 1.3}),
        Subject("2 ms stand-in", bench.stand_in(2), tokens, rounds, {}, {}, peers=False),
        Subject("6 ms stand-in", bench.stand_in(6), tokens, rounds, slow, {}, peers=False),
        Subject("20 ms stand-in", bench.stand_in(20), tokens // 2, rounds, slow, {}, peers=False),
    ]
    if (real := bench.real()) is not None:
        few, fewer = bench.fewer(24, 6), min(rounds, 3)
        subjects.insert(1, Subject(real.name, real, few, fewer, slow, {16: 1.0}))
    return subjects


async def _rows_of(bench: Bench, subject: Subject) -> list[Row]:
    rounds, cpu = Rounds(), _Cpu()
    async with _servers(bench, subject) as servers:
        with running_raw(bench, subject.folder, stand_in=not subject.peers) as raw:
            await _warm_up(bench, servers, raw)
            for streams in STREAMS:
                sides = [
                    *(_served(bench, subject, streams, each, rounds, cpu) for each in servers),
                    _alone(bench, subject, streams, raw, rounds, cpu),
                ]
                await bench.interleave(sides, subject.rounds)
    return [*_speed_rows(subject, rounds), *_cpu_rows(subject, cpu)]


@asynccontextmanager
async def _servers(bench: Bench, subject: Subject) -> AsyncIterator[list[Server]]:
    name = subject.folder.name
    async with AsyncExitStack() as stack:
        service = stack.enter_context(
            running_service(bench, {name: subject.folder}, stand_ins=not subject.peers)
        )
        servers = [await service.loaded(name)]
        if subject.peers:
            folder = subject.folder
            servers += [
                await stack.enter_async_context(running_lm_server(bench, folder)),
                await stack.enter_async_context(running_vlm_server(bench, folder)),
            ]
        yield servers


async def _warm_up(bench: Bench, servers: list[Server], raw: Raw) -> None:
    """Shapes are compiled and code is paged in before anything counts."""
    for streams in STREAMS:
        for server in servers:
            await server.ask_all(bench.prompts(streams), 4)
        await raw.decode(bench.prompts(streams), 4)


def _served(
    bench: Bench, subject: Subject, streams: int, server: Server, rounds: Rounds, cpu: "_Cpu"
) -> Side:
    async def side() -> None:
        prompts = bench.prompts(streams)
        before = {role: cpu_ms(pid) for role, pid in server.pids.items()}
        client_s, began_s = time.process_time(), time.perf_counter()
        answers = await server.ask_all(prompts, subject.tokens)
        client_ms = (time.process_time() - client_s) * 1000
        spent = {role: cpu_ms(pid) - before[role] for role, pid in server.pids.items()}
        pace = Pace(
            sum(answer.said.completion_tokens for answer in answers),
            max(answer.said.end_s for answer in answers) - began_s,
            {**spent, "client": client_ms},
        )
        rounds.add(f"{server.name} {streams}", pace.tokens_per_s)
        cpu.add(server.name, streams, pace)

    return side


def _alone(
    bench: Bench, subject: Subject, streams: int, raw: Raw, rounds: Rounds, cpu: "_Cpu"
) -> Side:
    async def side() -> None:
        pace = await raw.decode(bench.prompts(streams), subject.tokens)
        rounds.add(f"raw {streams}", pace.tokens_per_s)
        cpu.add("in-process", streams, pace)

    return side


class _Cpu:
    """Processor time and tokens, summed over rounds: single rounds are too coarse."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], Pace] = {}

    def add(self, name: str, streams: int, pace: Pace) -> None:
        so_far = self._sums.get((name, streams), Pace(0, 0.0))
        cpu = {role: ms + so_far.cpu_ms.get(role, 0.0) for role, ms in pace.cpu_ms.items()}
        total = Pace(so_far.tokens + pace.tokens, so_far.seconds + pace.seconds, cpu)
        self._sums[name, streams] = total

    def per_token(self, name: str, streams: int) -> dict[str, float]:
        """Milliseconds a token by role; nothing for who was not measured."""
        total = self._sums.get((name, streams))
        return {} if total is None else {r: ms / total.tokens for r, ms in total.cpu_ms.items()}


def _speed_rows(subject: Subject, rounds: Rounds) -> list[Row]:
    rows = []
    for streams in STREAMS:
        sides = {
            "in-process": (f"raw {streams}", subject.raw.get(streams)),
            "mlx_lm.server": (f"mlx_lm.server {streams}", subject.lm.get(streams)),
            "mlx_vlm.server": (f"mlx_vlm.server {streams}", None),
        }
        for label, (name, at_least) in sides.items():
            if name in rounds:
                rows.append(
                    rounds.beside(
                        f"{subject.name}, {streams} stream{'s' * (streams > 1)}",
                        "tok/s",
                        (f"mlxd {streams}", name),
                        label,
                        None if at_least is None else Target(at_least=at_least),
                    )
                )
    return rows


def _cpu_rows(subject: Subject, cpu: _Cpu) -> list[Row]:
    rows = []
    for streams in STREAMS:
        ours = cpu.per_token("mlxd", streams)
        alone = spread([cpu.per_token("in-process", streams)["process"]])
        beside = ", ".join(
            f"{name} {cpu.per_token(name, streams)['server']:.2f}"
            for name in ("mlx_lm.server", "mlx_vlm.server")
            if cpu.per_token(name, streams)
        )
        for role in ("worker", "bridge", "daemon", "client"):
            # Of short answers most is the request's own: the bound is a token's.
            bounded = role == "bridge" and streams >= 4 and subject.tokens >= BOUNDED_TOKENS
            rows.append(
                Row(
                    what=f"{subject.name}, {streams}: {role} cpu",
                    unit="ms/token",
                    ours=spread([ours[role]]),
                    beside="in-process" if role == "worker" else "",
                    theirs=alone if role == "worker" else None,
                    target=Target(at_most=0.1, of="ours") if bounded else None,
                    note=f"the same of {beside}" if role == "worker" and beside else "",
                )
            )
    return rows
