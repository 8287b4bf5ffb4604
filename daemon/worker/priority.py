"""Loading yields to what other models stream: imports and reading at a lower priority.

The daemon says when: only while requests run. On Linux a
thread's nice value is its own, and may be raised by anybody and lowered again by few: so
imports run in a thread that ends afterwards, and a thread that goes on is only lowered where
it can be brought back. macOS has classes of service, which a thread may change at will.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NICE: Final = 10
"""About a tenth of a processor that somebody else wants as well (sched(7))."""

_TASKS: Final = Path("/proc/self/task")
_QOS_DEFAULT: Final = 0x15
_QOS_UTILITY: Final = 0x11
"""Classes of service as <sys/qos.h> of macOS numbers them."""


def in_background(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread of low priority, and wait for it; raises what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        _lower_this_thread()
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            failures.append(error)

    thread = threading.Thread(target=run, name="background")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@contextmanager
def lowered() -> Iterator[None]:
    """Low priority for the calling thread, and for the library's own, within the block."""
    if sys.platform == "darwin":
        before = _service_class()
        _set_service_class(_QOS_UTILITY)
        try:
            yield
        finally:
            _set_service_class(before)
    elif _TASKS.exists() and _can_be_raised_again():
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        _renice(min(nice + NICE, 19))
        try:
            yield
        finally:
            _renice(nice)
    else:
        yield


def _lower_this_thread() -> None:
    if sys.platform == "darwin":
        _set_service_class(_QOS_UTILITY)
    else:
        with suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, min(nice + NICE, 19))


def _renice(nice: int) -> None:
    """All threads but Python's others, such as the one that serves the socket."""
    others = {t.native_id for t in threading.enumerate() if t is not threading.current_thread()}
    for task in _TASKS.iterdir():
        if int(task.name) not in others:
            with suppress(OSError):  # it has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def _can_be_raised_again() -> bool:
    """Tried in a thread that is not needed afterwards."""
    raised: list[bool] = []

    def probe() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, min(nice + 1, 19))
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError:
            return
        raised.append(True)

    thread = threading.Thread(target=probe, name="priority")
    thread.start()
    thread.join()
    return bool(raised)


def _service_class() -> int:
    """Of the calling thread; the default where it has none of its own."""
    system = ctypes.CDLL(None)
    qos, relative = ctypes.c_uint(0), ctypes.c_int(0)
    system.pthread_self.restype = ctypes.c_void_p
    thread = ctypes.c_void_p(system.pthread_self())
    system.pthread_get_qos_class_np(thread, ctypes.byref(qos), ctypes.byref(relative))
    return qos.value or _QOS_DEFAULT


def _set_service_class(qos: int) -> None:
    ctypes.CDLL(None).pthread_set_qos_class_self_np(ctypes.c_uint(qos), ctypes.c_int(0))
