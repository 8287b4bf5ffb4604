"""``python -m tests.sim --seed N --steps M``: repeat a simulation, or try many seeds."""

import argparse
import logging
import sys
import time

import msgspec
import structlog

from tests.sim.clients import Outcome
from tests.sim.planted import PLANTED, planted
from tests.sim.simulation import simulate
from tests.sim.worker import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--steps", type=int, default=300, help="steps of one simulation")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after another")
    parser.add_argument("--plant", choices=sorted(PLANTED), help="a bug that must be caught")
    parser.add_argument("--trace", action="store_true", help="say where a violation was seen")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    total, began_s = Outcome(), time.process_time()
    with planted(arguments.plant):
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            try:
                outcome = simulate(seed, arguments.steps)
            except Violation as violation:
                if arguments.trace:
                    raise
                print(f"seed {seed}: {violation}")
                return 1
            total = _sum(total, outcome)
    took_s = time.process_time() - began_s
    print(f"{arguments.seeds} seeds from {arguments.seed}, no violation: {_words(total)}")
    print(f"{total.steps / took_s:.0f} steps a second of processor time", flush=True)
    return 0


def _sum(total: Outcome, one: Outcome) -> Outcome:
    both = zip(msgspec.structs.astuple(total), msgspec.structs.astuple(one), strict=True)
    return Outcome(*(before + after for before, after in both))


def _words(total: Outcome) -> str:
    counts = msgspec.structs.asdict(total)
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


sys.exit(main())
