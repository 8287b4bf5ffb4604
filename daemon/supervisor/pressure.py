"""How short of memory the machine is, as its system says."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon.pool.messages import PressureLevel

_DARWIN_LEVELS: Final[dict[int, PressureLevel]] = {1: "normal", 2: "soft", 4: "hard"}
"""``kern.memorystatus_vm_pressure_level``: normal, warning, critical."""

HARD_SHARE: Final = 0.03
SOFT_SHARE: Final = 0.06
STALLED_SHARE: Final = 0.15
STALLED_PERCENT: Final = 20.0
"""With less than ``STALLED_SHARE`` available, and tasks waiting for memory so much of the
last ten seconds (``some avg10`` of /proc/pressure/memory), Linux is short of it too."""


def read_pressure() -> PressureLevel:
    """The level now; a system that cannot say is taken for normal."""
    if sys.platform == "darwin":
        return _darwin()
    return linux_level(_read(Path("/proc/meminfo")), _read(Path("/proc/pressure/memory")))


def linux_level(meminfo: str, pressure: str) -> PressureLevel:
    """The level from the text of /proc/meminfo and /proc/pressure/memory. Pure."""
    kilobytes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in meminfo.splitlines())
        if name in ("MemTotal", "MemAvailable")
    }
    if len(kilobytes) != 2:
        return "normal"
    available = kilobytes["MemAvailable"] / kilobytes["MemTotal"]
    if available < HARD_SHARE:
        return "hard"
    stalled = available < STALLED_SHARE and _some_avg10(pressure) > STALLED_PERCENT
    return "soft" if available < SOFT_SHARE or stalled else "normal"


def _some_avg10(pressure: str) -> float:
    for line in pressure.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            values = dict(field.partition("=")[::2] for field in fields)
            return float(values.get("avg10", 0))
    return 0.0


def _darwin() -> PressureLevel:
    level, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    libc = ctypes.CDLL(None)
    name = b"kern.memorystatus_vm_pressure_level"
    if libc.sysctlbyname(name, ctypes.byref(level), ctypes.byref(size), None, 0) != 0:
        return "normal"
    return _DARWIN_LEVELS.get(level.value, "normal")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


ReadPressure = Callable[[], PressureLevel]
