"""How much memory there is, and how much of it models may have."""

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daemon.supervisor.residue import read_statistics
from daemon.wire.units import format_bytes

RAM_SHARE: Final = 0.75
WORKING_SET_SHARE: Final = 0.9
WORKING_SET_KEY: Final = "recommended_working_set_bytes"
PROBE_TIMEOUT_S: Final = 60.0

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def memory_total_bytes() -> int:
    """RAM of this machine; on Linux never more than the cgroup's limit."""
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "hw.memsize"], capture_output=True, check=True, text=True
        )
        return int(asked.stdout)
    total_bytes = _named(_MEMINFO.read_text(encoding="ascii"), "MemTotal:") * 1024
    if not total_bytes:
        raise OSError("/proc/meminfo names no MemTotal")
    return min(total_bytes, _cgroup_limit_bytes())


def available_bytes() -> int:
    """Memory that could be used now without anything being swapped; 0 if nobody says.

    Raises:
        OSError: The system's files cannot be read.
    """
    if sys.platform == "darwin":
        statistics = read_statistics()
        return 0 if statistics is None else darwin_available_bytes(*statistics)
    meminfo = _MEMINFO.read_text(encoding="ascii")
    limit_bytes = _cgroup_limit_bytes()
    if limit_bytes == sys.maxsize:
        return linux_available_bytes(meminfo)
    used_bytes = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    stat = (_CGROUP / "memory.stat").read_text(encoding="ascii")
    return linux_available_bytes(meminfo, limit_bytes - used_bytes, stat)


def linux_available_bytes(meminfo: str, unused_bytes: int = sys.maxsize, stat: str = "") -> int:
    """From the text of /proc/meminfo, and of a cgroup what is unused of its limit and the text
    of its memory.stat: the cgroup's files in the page cache count as available. Pure.
    """
    machine_bytes = _named(meminfo, "MemAvailable:") * 1024
    cached_bytes = _named(stat, "inactive_file") + _named(stat, "active_file")
    return max(min(machine_bytes, unused_bytes + cached_bytes), 0)


def darwin_available_bytes(statistics: bytes, page_bytes: int) -> int:
    """Free and inactive pages of a ``struct vm_statistics64``: its first and third word. Pure."""
    free, _, inactive = struct.unpack_from("=3I", statistics)
    return int(free + inactive) * page_bytes


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
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return sys.maxsize
    return int(limit) if limit.isdigit() else sys.maxsize


def _named(text: str, name: str) -> int:
    """The number behind ``name`` in lines of names and numbers; 0 if it is not there."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    return 0
