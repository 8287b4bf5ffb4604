"""``python -I -m daemon.worker --worker ID --run-dir DIR``: started by the daemon only."""

import sys

from daemon.worker.engines import REGISTRY, import_libraries
from daemon.worker.main import leave, main

if __name__ == "__main__":
    leave(main(sys.argv[1:], REGISTRY, import_libraries))
