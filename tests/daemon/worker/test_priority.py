"""Loading yields: in threads that end, and in those that can be brought back."""

import os
import sys
import threading

import pytest

from daemon.worker.priority import NICE, in_background, lowered

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
