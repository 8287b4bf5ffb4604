"""``python -I -m benchmarks.stand_in_worker``: the shipped worker over an engine without a model.

Everything but the engine is what ships. The engine sleeps through each step for as long as
the model folder says, as a GPU would let the processor sleep; so what is measured is all
that surrounds a step.
"""

import sys

from daemon.worker.main import leave, main
from tests.fakes.engine import FakeEngine


def import_nothing(_any_kind: bool) -> None:
    """The stand-in needs no library."""


if __name__ == "__main__":
    leave(main(sys.argv[1:], {"text": FakeEngine}, import_nothing))
