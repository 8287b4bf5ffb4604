"""Facts about processes that survive pid reuse and reboots, and waiting for their end."""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import anyio

_PROC_PIDTBSDINFO: Final = 3
_PROC_BSDINFO: Final = struct.Struct("=120xQQ")
"""Start seconds and microseconds at the end of ``struct proc_bsdinfo`` (sys/proc_info.h)."""


def boot_id() -> str:
    """Changes with every start of the machine."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    asked = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
        capture_output=True,
        check=True,
        text=True,
    )
    return asked.stdout.strip()


def start_time(pid: int) -> float | None:
    """When process ``pid`` was started; None if there is none.

    The unit is the system's own (clock ticks since boot on Linux, seconds since the epoch
    on macOS): values are only ever compared with values from the same boot.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The command name may hold spaces and brackets: fields count from after the last ")".
        return float(stat.rpartition(")")[2].split()[19])
    libproc: Any = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    buffer = ctypes.create_string_buffer(_PROC_BSDINFO.size)
    got = libproc.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, len(buffer))
    if got != _PROC_BSDINFO.size:
        return None
    seconds, microseconds = _PROC_BSDINFO.unpack(buffer.raw)
    return float(seconds) + float(microseconds) / 1e6


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it cannot be read."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError):
            pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0
    asked = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False, text=True
    )
    return int(asked.stdout) * 1024 if asked.stdout.strip() else 0


def is_held(lock: Path) -> bool:
    """Whether a living process holds the lock file: the one test of being alive."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with closing(os.fdopen(fd, "rb")) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def wait_exit(pid: int) -> None:
    """Wait until process ``pid``, a child or not, has ended. No polling."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)
        return
    with closing(select.kqueue()) as queue:
        event = select.kevent(
            pid,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        try:
            queue.control([event], 0)
        except ProcessLookupError:
            return
        await anyio.wait_readable(queue.fileno())
