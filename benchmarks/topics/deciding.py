"""What one decision costs in a pool of a hundred models: pure code, timed in this process."""

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures import Rounds, Row
from daemon.pool import messages as m
from daemon.pool.decide import decide
from daemon.pool.evolve import evolve
from daemon.pool.state import Limits, Pool

MODELS = 100
GB = 10**9
NOW_MS = 1_790_000_000_000

_BATCH = 20
_EVICT = "acquire a model that needs room"


def rows(bench: Bench) -> list[Row]:
    """Rows about the commands that every request brings, and about the dearest one."""
    pool = full_pool()
    granted = _done(pool, _acquire(7))
    lease = next(iter(granted.leases))
    commands: dict[str, tuple[Pool, m.AnyCommand]] = {
        "acquire a resident model": (pool, _acquire(7)),
        "release": (granted, m.Release(leases=(lease,))),
        "tick": (pool, m.Tick()),
        _EVICT: (pool, _acquire(MODELS)),
    }
    rounds = Rounds()
    for _ in range(bench.rounds):
        for name, (before, command) in commands.items():
            work = partial(decide, before, command, NOW_MS)
            rounds.add(name, _microseconds(work, bench.fewer(100, 20)))
    return [
        rounds.alone(
            f"decide, {MODELS} models: {name}",
            "µs",
            name,
            at_most=None if name == _EVICT else 50,
            note="once an eviction: all of them are looked at and recorded" * (name == _EVICT),
        )
        for name in commands
    ]


def full_pool() -> Pool:
    """A pool whose models are all resident and unused, and fill its memory."""
    pool = Pool(limits=Limits(budget_bytes=MODELS * 2 * GB, workers_max=2 * MODELS))
    for number in range(MODELS):
        at_ms = NOW_MS - 3_600_000 + number * 1000
        worker = f"w{number}"
        for event in (
            m.LoadStarted(
                model=model(number),
                worker=worker,
                claim_bytes=2 * GB,
                kv_tokens=16_384,
                rows_max=16,
                reason="acquire",
                asked_by=("bench",),
            ),
            m.WorkerSpawned(worker=worker, pid=4711, start_time=1.25, boot_id="b"),
            m.LoadReady(
                worker=worker,
                model=model(number).name,
                measured_bytes=2 * GB,
                load_ms=2_300,
                context_tokens=32_768,
            ),
        ):
            pool = evolve(pool, event, at_ms)
    return pool


def model(number: int) -> m.Model:
    """One of many alike."""
    name = f"org/model-{number}"
    return m.Model(
        key=f"/models/{name}",
        name=name,
        path=f"/models/{name}",
        kind="text",
        capabilities=("text",),
        weights_bytes=3 * GB // 2,
        kv_token_bytes=16_384,
        context_tokens=32_768,
    )


def _acquire(number: int) -> m.Acquire:
    option = m.Option(model=model(number), terms=m.Terms())
    return m.Acquire(ticket=1, client="bench", options=(option,), deadline_at_ms=NOW_MS + 60_000)


def _done(pool: Pool, command: m.AnyCommand) -> Pool:
    for event in decide(pool, command, NOW_MS).events:
        pool = evolve(pool, event, NOW_MS)
    return pool


def _microseconds(work: Callable[[], object], batches: int) -> float:
    """The median over batches, which a neighbour on the core disturbs least."""
    times = []
    for _ in range(batches):
        began_s = time.perf_counter()
        for _ in range(_BATCH):
            work()
        times.append((time.perf_counter() - began_s) / _BATCH * 1e6)
    return statistics.median(times)
