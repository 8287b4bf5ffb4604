"""A program in place of mlxd's own: holds the lock of its module until SIGTERM, and no more.

What is tested with it is the installer; the programs themselves take seconds to start.
"""

import sys
from pathlib import Path

_STUB = """#!{python} -IS
import fcntl, json, os, signal, sys
lock = {{"daemon": "mlxd", "http_bridge": "mlx-bridge"}}[sys.argv[-1]]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(os.environ["MLXD_HOME"] + "/run/" + lock + ".lock", "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.truncate(0)
    file.write(json.dumps({{"pid": os.getpid()}}))
    file.flush()
    if os.path.exists(os.environ["MLXD_HOME"] + "/broken"):
        print("it is broken", file=sys.stderr)
        sys.exit(2)
    while True:
        signal.pause()
"""


def write_stub(folder: Path) -> Path:
    """What a service can have as its python."""
    python = folder / "stub-python"
    python.write_text(_STUB.format(python=sys.executable))
    python.chmod(0o755)
    return python
