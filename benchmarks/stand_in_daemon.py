"""``python -m benchmarks.stand_in_daemon``: the shipped daemon, whose workers are stand-ins.

Only the command that starts a worker differs from ``python -m daemon``.
"""

import json
import os
import sys
from pathlib import Path

import anyio
from msgspec.structs import replace

from daemon import app
from daemon.wire.logs import set_up_logging
from daemon.wire.paths import find_home
from daemon.wire.settings import load_settings

WORKER = (sys.executable, "-I", "-m", "benchmarks.stand_in_worker")


def main() -> None:
    """Serve until SIGTERM, as ``mlxd`` does."""
    set_up_logging()
    environ = dict(os.environ)
    home = find_home(environ, sys.platform)
    settings = load_settings(home.config_file)
    launcher = replace(app.make_launcher(home, settings, environ), command=WORKER)
    anyio.run(app.run, home, settings, launcher, app.read_machine(), _ready)


def _ready(socket: Path) -> None:
    print(json.dumps({"event": "daemon.ready", "socket": str(socket)}), flush=True)


if __name__ == "__main__":
    main()
