"""How long a model takes to come and to go."""

import asyncio
import time
from pathlib import Path

from benchmarks.bench import Bench, Side, in_thread
from benchmarks.figures import Rounds, Row, Table, Target, ratios, spread
from benchmarks.processes import alive
from benchmarks.raw import running_raw
from benchmarks.service import Service, running_service, worker_pid

_LOOK_EVERY_S = 0.05
EXTRA_S = 0.2
"""What a cold spawn may cost beyond a process that imports the library and loads."""


async def measure(bench: Bench) -> Table:
    """The table ``loads``."""
    models = {"toy": bench.toy()}
    if (real := bench.real()) is not None:
        models[real.name] = real
    rows: list[Row] = []
    with running_service(bench, models) as service:
        for name, folder in models.items():
            rounds = Rounds()
            sides = [_ours(service, name, rounds), _alone(bench, folder, rounds)]
            for side in sides:  # files in the page cache, bytecode compiled
                await side()
            rounds = Rounds()
            sides = [_ours(service, name, rounds), _alone(bench, folder, rounds)]
            await bench.interleave(sides)
            rows += _rows(name, rounds)
    with running_service(bench, models, spare=True) as service:
        for name, folder in models.items():
            rows += await _with_spare(bench, service, name, folder)
    notes = (
        "files are in the page cache: what is measured is the service, not the disk",
        "with a spare: beside mlx_lm.load() in a process that has imported it already",
        "in-process: a new python that imports mlx_lm and loads, from its start to a loaded model",
    )
    return Table("loads", "load to ready, and memory back", tuple(rows), notes)


def _ours(service: Service, model: str, rounds: Rounds) -> Side:
    async def side() -> None:
        async with service.control() as control:
            began_s = time.perf_counter()
            await control.load(model)
            ready_s = time.perf_counter()
            pid = worker_pid(await control.status(), model)
            leaving_s = time.perf_counter()
            await control.unload(model)
            gone_s = time.perf_counter()
        assert not alive(pid), f"the worker {pid} of {model} is still there"
        rounds.add("load", ready_s - began_s)
        rounds.add("unload", (gone_s - leaving_s) * 1000)

    return side


async def _with_spare(bench: Bench, service: Service, name: str, folder: Path) -> list[Row]:
    """A load that takes a process which has imported the libraries and waits."""
    rounds = Rounds()
    sides = [_spared(_ours(service, name, rounds), service), _loading(bench, folder, rounds)]
    await bench.interleave(sides, bench.rounds + 1)
    figures = (rounds.of("load")[1:], rounds.of("raw")[1:])  # the first read the files
    return [
        Row(
            what=f"{name}: load to ready, with a spare",
            unit="s",
            ours=spread(figures[0]),
            beside="load()",
            theirs=spread(figures[1]),
            ratio=ratios(*figures),
            target=Target(at_most=1.1),
        )
    ]


def _spared(load: Side, service: Service) -> Side:
    async def side() -> None:
        async with service.control() as control:
            while not (await control.status()).spare_bytes or not _waits(service):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
        await load()

    return side


def _waits(service: Service) -> bool:
    """Whether the newest spare has imported everything: it says so in its log."""
    logs = (service.home / "logs").glob("worker-s*.log")
    return any("spare.waiting" in log.read_text("utf-8") for log in logs)


def _loading(bench: Bench, folder: Path, rounds: Rounds) -> Side:
    async def side() -> None:
        rounds.add("raw", await in_thread(lambda: _load_s(bench, folder)))

    return side


def _load_s(bench: Bench, folder: Path) -> float:
    with running_raw(bench, folder) as raw:
        return raw.load_s


def _alone(bench: Bench, folder: Path, rounds: Rounds) -> Side:
    async def side() -> None:
        rounds.add("raw", await in_thread(lambda: _start_s(bench, folder)))

    return side


def _start_s(bench: Bench, folder: Path) -> float:
    with running_raw(bench, folder) as raw:
        return raw.start_s


def _rows(name: str, rounds: Rounds) -> list[Row]:
    cold, raw = rounds.of("load"), rounds.of("raw")
    extra = [(ours - alone) * 1000 for ours, alone in zip(cold, raw, strict=True)]
    return [
        Row(
            what=f"{name}: load to ready, cold",
            unit="s",
            ours=spread(cold),
            beside="in-process",
            theirs=spread(raw),
            ratio=ratios(cold, raw),
        ),
        Row(
            what=f"{name}: the difference",
            unit="ms",
            ours=spread(extra),
            target=Target(at_most=EXTRA_S * 1000, of="ours"),
        ),
        rounds.alone(f"{name}: unload to process gone, memory back", "ms", "unload", at_most=500),
    ]
