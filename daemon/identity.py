"""Which process on which boot of the machine: what tells a worker from a reused pid.

Daemon and workers both read them here; it imports little, since it holds up "ready".
"""

import ctypes
import struct
import sys
from pathlib import Path
from typing import Final

_ENDED: Final = frozenset("ZX")
"""States of a process that has ended and that its parent has not waited for."""

_PROC_PIDTBSDINFO: Final = 3
_BSDINFO: Final = struct.Struct("12I16s32s5Ii2Q")
"""macOS ``struct proc_bsdinfo`` (sys/proc_info.h); the last two are start seconds and µs."""


def process_start_time(pid: int) -> float:
    """When a process began: equal for two readings exactly if it is one process.

    In the system's own unit, as the daemon reads it: clock ticks since boot on Linux
    (/proc/PID/stat, field 22), seconds since the epoch on macOS (libproc).

    Raises:
        ProcessLookupError: There is no such process, or only what is left of one.
    """
    if sys.platform == "darwin":
        return _start_time_darwin(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except FileNotFoundError as error:
        raise ProcessLookupError(f"there is no process {pid}") from error
    # The second field is the command in parentheses, and may itself hold spaces.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in _ENDED:
        raise ProcessLookupError(f"process {pid} has ended")
    return float(fields[19])


def _start_time_darwin(pid: int) -> float:
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
    buffer = ctypes.create_string_buffer(_BSDINFO.size)
    written = libproc.proc_pidinfo(
        pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, _BSDINFO.size
    )
    if written != _BSDINFO.size:
        raise ProcessLookupError(f"there is no process {pid}")
    *_, seconds, microseconds = _BSDINFO.unpack(buffer.raw)
    return float(seconds) + float(microseconds) / 1e6


def boot_id() -> str:
    """A name of this boot of the machine: another one after every restart.

    ``/proc/sys/kernel/random/boot_id`` on Linux, ``kern.bootsessionuuid`` on macOS.
    """
    if sys.platform == "darwin":
        libc = ctypes.CDLL("/usr/lib/libSystem.dylib", use_errno=True)
        size = ctypes.c_size_t(64)
        value = ctypes.create_string_buffer(size.value)
        if libc.sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0) != 0:
            raise OSError(ctypes.get_errno(), "sysctl kern.bootsessionuuid failed")
        return value.value.decode("ascii")
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
