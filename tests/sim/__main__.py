"""``python -m tests.sim --seed N --steps M``: repeat a simulation, or try many seeds."""

import argparse
import logging

import structlog

from tests.sim.planted import PLANTED, planted
from tests.sim.simulation import simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--steps", type=int, default=300, help="steps of one simulation")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after another")
    parser.add_argument("--plant", choices=sorted(PLANTED), help="a bug that must be caught")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with planted(arguments.plant):
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            print(f"seed {seed}", flush=True)
            print(simulate(seed, arguments.steps), flush=True)


main()
