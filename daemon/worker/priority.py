"""Loading yields to what other models stream: imports and reading at a lower priority.

The daemon says when: only while requests run. macOS has classes of service, which a thread
may change at will. Linux weighs sessions against each other first, where its scheduler groups
by session (autogroup in sched(7)), and a worker has a session of its own: its group's nice
value is lowered and brought back. Within a group, or where nothing is grouped, a thread's nice
value counts, which may be raised by anybody and lowered again by few: so imports run in a
thread that ends afterwards, and a thread that goes on is only lowered where it can be brought
back.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NICE: Final = 10
"""About a tenth of a processor that somebody else wants as well (sched(7))."""

_TASKS: Final = Path("/proc/self/task")
_GROUP: Final = Path("/proc/self/autogroup")
_GROUP_AGAIN_S: Final = 0.02
"""The system takes ten changes a second, of all sessions together."""

_QOS_DEFAULT: Final = 0x15
_QOS_UTILITY: Final = 0x11
"""Classes of service as <sys/qos.h> of macOS numbers them."""


class SessionGroup:
    """This process's scheduling group on Linux, if the process leads its session.

    Args:
        write: Sets the group's nice value; BlockingIOError where it must be tried again.
    """

    def __init__(self, write: Callable[[int], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._nice = self._wanted = 0

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """A low priority within the block, and the usual one soon after it."""
        self._want(NICE)
        try:
            yield
        finally:
            self._want(0)

    def _want(self, nice: int) -> None:
        with self._lock:
            idle = self._nice == self._wanted
            self._wanted = nice
        if idle and not self._settled():
            threading.Thread(target=self._settle, name="priority", daemon=True).start()

    def _settle(self) -> None:
        while not self._settled():
            time.sleep(_GROUP_AGAIN_S)

    def _settled(self) -> bool:
        """Whether no more needs to be done; tries once, if something had to be."""
        with self._lock:
            if self._nice == self._wanted:
                return True
            try:
                self._write(self._wanted)
            except BlockingIOError:
                return False
            except OSError:  # no such groups here, or not ours to change
                pass
            self._nice = self._wanted
            return True


def _write_group(nice: int) -> None:
    if os.getsid(0) != os.getpid():
        return
    group = os.open(_GROUP, os.O_WRONLY)
    try:
        os.write(group, b"%d" % nice)
    finally:
        os.close(group)


_SESSION: Final = SessionGroup(_write_group)


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
    with _SESSION.lowered():
        thread.start()
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def lowered() -> Iterator[None]:
    """Low priority for the calling thread, and for the library's own, within the block."""
    with _SESSION.lowered(), _threads_lowered():
        yield


@contextmanager
def _threads_lowered() -> Iterator[None]:
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
