"""How much memory there is, and how much of it models may have."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daemon.wire.units import format_bytes

RAM_SHARE: Final = 0.75
WORKING_SET_SHARE: Final = 0.9
WORKING_SET_KEY: Final = "recommended_working_set_bytes"
PROBE_TIMEOUT_S: Final = 60.0

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


def memory_total_bytes() -> int:
    """RAM of this machine; on Linux never more than the cgroup's limit."""
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, check=True, text=True
        )
        return int(asked.stdout)
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return min(int(line.split()[1]) * 1024, _cgroup_limit_bytes())
    raise OSError("/proc/meminfo names no MemTotal")


def recommended_working_set_bytes(worker_command: Sequence[str]) -> int | None:
    """What Metal recommends as the most its buffers should hold, asked of a worker.

    None where there is no Metal: the daemon itself never imports mlx.
    """
    if sys.platform != "darwin":
        return None
    asked = subprocess.run(
        [*worker_command, "--probe"],
        capture_output=True,
        check=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
    )
    found = json.loads(asked.stdout).get(WORKING_SET_KEY)
    return int(found) if found else None


def budget_bytes(
    configured_bytes: int | None, total_bytes: int, working_set_bytes: int | None
) -> tuple[int, str | None]:
    """What all models may claim together, and a warning if the configuration was clamped.

    Default: the smaller of 90 % of the recommended working set and 75 % of RAM.
    """
    if configured_bytes is None:
        share = int(total_bytes * RAM_SHARE)
        if working_set_bytes is None:
            return share, None
        return min(share, int(working_set_bytes * WORKING_SET_SHARE)), None
    if configured_bytes <= total_bytes:
        return configured_bytes, None
    return total_bytes, (
        f"pool.memory is {format_bytes(configured_bytes)}, more than the machine's "
        f"{format_bytes(total_bytes)}: {format_bytes(total_bytes)} is used"
    )


def _cgroup_limit_bytes() -> int:
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return sys.maxsize
    return int(limit) if limit.isdigit() else sys.maxsize
