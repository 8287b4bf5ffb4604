"""Keys on a pseudo-terminal."""

import os
import pty
import termios
from collections.abc import Iterator

import pytest

from ctl.keyboard import read_keys, single_keys


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("pressed", "key"),
    [("\x1b[A", "up"), ("\x1b[B", "down"), ("j", "down"), ("Q", "q"), ("\x1b", "escape"),
     ("\n", "enter"), ("Ü", "ü")],
)  # fmt: skip
def test_keys_have_names(terminal: tuple[int, int], pressed: str, key: str) -> None:
    ours, theirs = terminal
    with single_keys(theirs):
        os.write(ours, pressed.encode())
        assert read_keys(theirs) == [key]


def test_fast_fingers_press_several_keys_at_once(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with single_keys(theirs):
        os.write(ours, b"\x1b[Bu\x1b[A\x1bjq")
        assert read_keys(theirs) == ["down", "u", "up", "escape", "down", "q"]


def test_a_failure_in_between_gives_the_terminal_back(terminal: tuple[int, int]) -> None:
    _, theirs = terminal
    before = termios.tcgetattr(theirs)

    def fail_in_between() -> None:
        with single_keys(theirs):
            assert termios.tcgetattr(theirs) != before
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_in_between()
    assert termios.tcgetattr(theirs) == before


def test_ctrl_z_would_leave_a_full_screen_standing(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with single_keys(theirs):
        os.write(ours, b"\x1a")
        assert read_keys(theirs) == ["\x1a"], "a key like others, and no signal"
