"""A worker process, started only to say what MLX says of this machine."""

import json
import subprocess
import sys
from typing import Any, Final

from daemon.wire.errors import Code, MlxdError

TIMEOUT_S: Final = 60.0


def probe_worker() -> dict[str, Any]:
    """Start a worker as the daemon does, and read its facts.

    Raises:
        MlxdError: ``worker_failed`` with what it said instead.
    """
    argv = [sys.executable, "-I", "-m", "daemon.worker", "--probe"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MlxdError(
            Code.WORKER_FAILED,
            f"a worker has said nothing for {TIMEOUT_S:.0f} s",
            hint=f"see where it hangs: {' '.join(argv)}",
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MlxdError(
            Code.WORKER_FAILED,
            f"a worker cannot start (exit {done.returncode}): {last}",
            hint=f"install mlxd again; to see it yourself: {' '.join(argv)}",
        )
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
