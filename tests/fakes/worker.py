"""``python -I -m tests.fakes.worker``: the shipped worker, with the fake engine beside the real.

A model folder is fake when the daemon says kind "fake"; see :mod:`tests.fakes.engine`.
"""

import sys

from daemon.worker.engines import REGISTRY
from daemon.worker.main import leave, main
from tests.fakes.engine import FakeEngine


def import_nothing(_any_kind: bool) -> None:
    """The fake needs no library, and a real kind imports its own."""


if __name__ == "__main__":
    leave(main(sys.argv[1:], {**REGISTRY, "fake": FakeEngine}, import_nothing))
