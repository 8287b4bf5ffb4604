"""Loading yields: in threads that end, and in those that can be brought back."""

import os
import subprocess
import sys
import threading

import pytest

from daemon.worker.priority import NICE, SessionGroup, in_background, lowered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nice values are Linux's here")


def nice(task: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, task)


def test_work_in_the_background_is_nice_and_nobody_else_becomes_so() -> None:
    before = nice()
    seen: list[int] = []
    in_background(lambda: seen.append(nice()))
    assert seen == [min(before + NICE, 19)]
    assert nice() == before


def test_what_fails_in_the_background_fails_here() -> None:
    def fail() -> None:
        raise ModuleNotFoundError("no such module")

    with pytest.raises(ModuleNotFoundError, match="no such module"):
        in_background(fail)


def test_a_thread_is_lowered_and_brought_back_and_others_are_left_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("few but root may raise a priority again")
    before, done = nice(), threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert other.native_id is not None
        with lowered():
            assert nice() == min(before + NICE, 19)
            assert nice(other.native_id) == before
        assert nice() == before
    finally:
        done.set()
        other.join()


def test_what_could_not_be_brought_back_is_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system is to anybody but root: nice values only rise."""
    set_priority = os.setpriority

    def only_up(which: int, who: int, value: int) -> None:
        if value < os.getpriority(which, who):
            raise PermissionError(13, "not for you")
        set_priority(which, who, value)

    monkeypatch.setattr(os, "setpriority", only_up)
    before = nice()
    with lowered():
        assert nice() == before
    assert nice() == before


def test_a_group_is_lowered_and_brought_back_however_often_the_system_says_later() -> None:
    written: list[int] = []
    later, restored = [True, True, False], threading.Event()

    def write(nice: int) -> None:
        if written and later.pop():
            raise BlockingIOError(11, "not now")
        written.append(nice)
        if nice == 0:
            restored.set()

    later.reverse()
    with SessionGroup(write).lowered():
        assert written == [NICE]
    assert restored.wait(10)
    assert written == [NICE, 0]
    assert later == []


def test_a_system_without_groups_is_left_as_it_is() -> None:
    def write(nice: int) -> None:
        raise FileNotFoundError(2, "no autogroup")

    with SessionGroup(write).lowered():
        pass


_SEEN = """
import sys, time
from pathlib import Path
from daemon.worker.priority import in_background

def wait_for(nice):
    until_s = time.monotonic() + 20
    while Path("/proc/self/autogroup").read_text().split()[-1] != nice:
        if time.monotonic() > until_s:
            sys.exit(f"the group's nice value never was {nice}")

in_background(lambda: wait_for(sys.argv[1]))
wait_for("0")
"""


def test_a_session_of_its_own_is_lowered_as_a_whole() -> None:
    if not os.access("/proc/self/autogroup", os.W_OK):
        pytest.skip("this system does not group by session")
    command = (sys.executable, "-c", _SEEN, str(NICE))
    subprocess.run(command, start_new_session=True, timeout=60, check=True)
