"""``python -m benchmarks [TOPIC...]``: measure, and print a table a topic."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.machine import machine_text, read_machine
from benchmarks.render import summary_text, table_text
from benchmarks.results import Results, document_text
from benchmarks.topics import BY_REQUEST, TOPICS

ROUNDS = 5
SOAK_S = 600.0


async def run(bench: Bench, topics: list[str], *, aloud: bool) -> Results:
    """Measure the topics, one after the other.

    Args:
        aloud: Print each table as soon as it is there.
    """
    machine = read_machine(fast_blas=bool(bench.blas_env))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    if aloud:
        print(machine_text(machine), flush=True)
        if bench.quick:
            print("--quick: shows that it runs; not figures to quote", flush=True)
    tables = []
    for topic in topics:
        began_s = time.monotonic()
        tables.append(await TOPICS[topic](bench))
        if aloud:
            print(f"\n{table_text(tables[-1])}", flush=True)
        took_s = time.monotonic() - began_s
        print(f"  ({topic}: {took_s:.0f} s, load {os.getloadavg()[0]:.2f})", file=sys.stderr)
    if aloud:
        print(f"\n{summary_text(tables)}", flush=True)
    return Results(1, at, bench.quick, bench.rounds, machine, tuple(tables))


def main() -> None:
    """The command line."""
    arguments = _parse()
    topics = arguments.topics or [topic for topic in TOPICS if topic not in BY_REQUEST]
    with tempfile.TemporaryDirectory(prefix="mlxd-bench-") as folder:
        bench = Bench(
            Path(folder),
            rounds=arguments.rounds or (1 if arguments.quick else ROUNDS),
            quick=arguments.quick,
            soak_s=arguments.soak_s or (5.0 if arguments.quick else SOAK_S),
        )
        try:
            results = asyncio.run(_interruptible(run(bench, topics, aloud=not arguments.json)))
        except asyncio.CancelledError:
            sys.exit(130)
    if arguments.json:
        print(document_text(results))


async def _interruptible(running: Coroutine[None, None, Results]) -> Results:
    """``running``, cancelled by Ctrl-C and SIGTERM: its blocks end what they started."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await running


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Side by side with others, ratios in one run."
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)}")
    parser.add_argument("--rounds", type=int, help=f"how often ({ROUNDS}; 1 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="little of everything, in four minutes"
    )
    parser.add_argument("--json", action="store_true", help="one document instead of tables")
    parser.add_argument("--soak-s", type=float, help=f"length of the topic soak ({SOAK_S:.0f})")
    arguments = parser.parse_args()
    if unknown := set(arguments.topics) - TOPICS.keys():
        parser.error(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    return arguments


if __name__ == "__main__":
    main()
