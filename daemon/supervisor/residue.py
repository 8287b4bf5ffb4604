"""Memory that stays wired after a worker's end, as macOS can keep that of a killed Metal process.

What a process had wired is not told by process. It is the difference that its end makes to
the whole machine, and never more than the worker itself said that it held.
"""

import ctypes
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

GONE_AFTER_S: Final = 10.0
"""Memory that has not come back by then stays, until the machine is restarted."""

LOOK_EVERY_S: Final = 0.5
"""No system says when wired memory falls: it is looked at until it has."""

_HOST_VM_INFO64: Final = 4
_WORDS: Final = 64
"""More than ``struct vm_statistics64`` has in any release: the system fills what it knows."""

_WIRE_COUNT: Final = 3
"""After free, active and inactive pages, each a ``natural_t`` (mach/vm_statistics.h)."""

ReadWired = Callable[[], int | None]


def read_wired_bytes() -> int | None:
    """Wired memory of the machine; None where nothing stays wired after a process (Linux)."""
    statistics = read_statistics() if sys.platform == "darwin" else None
    return None if statistics is None else wired_bytes(*statistics)


class Wiring:
    """What one worker has wired, seen from the machine's total."""

    def __init__(
        self,
        read: ReadWired = read_wired_bytes,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """Before the worker has loaded anything."""
        self._read = read
        self._sleep = sleep
        self._at_start = self._last = read()

    def look(self) -> None:
        """The worker lives, and has just said something."""
        self._last = self._read()

    async def residue_bytes(self, footprint_bytes: int) -> int:
        """Once the process is gone: what it has not given back after ``GONE_AFTER_S``.

        It counts as gone once half of what it had wired has come back: others come and go
        meanwhile. Nothing is said of one that was not seen to wire anything.

        Args:
            footprint_bytes: What the worker last said that it held.
        """
        if self._at_start is None or self._last is None:
            return 0
        before = self._last
        held = min(footprint_bytes, before - self._at_start)
        if held <= 0:
            return 0
        fell = 0
        for _ in range(round(GONE_AFTER_S / LOOK_EVERY_S) + 1):
            now = self._read()
            fell = 0 if now is None else before - now
            if 2 * fell >= held:
                return 0
            await self._sleep(LOOK_EVERY_S)
        return held - max(fell, 0)


def wired_bytes(statistics: bytes, page_bytes: int) -> int:
    """Of a ``struct vm_statistics64`` as this machine lays it out. Pure."""
    place = 4 * _WIRE_COUNT
    return int.from_bytes(statistics[place : place + 4], sys.byteorder) * page_bytes


def read_statistics() -> tuple[bytes, int] | None:
    """The machine's ``struct vm_statistics64`` and its page size. macOS only."""
    libc = ctypes.CDLL(None)
    words, count = (ctypes.c_uint32 * _WORDS)(), ctypes.c_uint32(_WORDS)
    failed = libc.host_statistics64(
        _this_host(), _HOST_VM_INFO64, ctypes.byref(words), ctypes.byref(count)
    )
    if failed:
        return None
    return bytes(words), ctypes.c_size_t.in_dll(libc, "vm_kernel_page_size").value


@functools.cache
def _this_host() -> int:
    """The port that names this machine; each call would take another reference to it."""
    return int(ctypes.CDLL(None).mach_host_self())
