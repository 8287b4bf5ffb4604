"""Single keys from a terminal, which gets its own ways back whatever happens."""

import os
import re
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_KEY: Final = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMES: Final = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up",
    "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b": "escape", "\r": "enter", "\n": "enter",
}  # fmt: skip


@contextmanager
def single_keys(fd: int) -> Iterator[None]:
    """Keys come at once and unseen for the length of the block.

    Ctrl-C stays Ctrl-C. Ctrl-Z does nothing: it would leave a full screen standing.
    """
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        now = termios.tcgetattr(fd)
        now[6][termios.VSUSP] = bytes([os.fpathconf(fd, "PC_VDISABLE") & 0xFF])
        termios.tcsetattr(fd, termios.TCSANOW, now)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def read_keys(fd: int) -> list[str]:
    """The keys that were pressed: "up", "down", "enter", "escape", a letter, or "end".

    Call it when ``fd`` can be read. Somebody who types fast has pressed several; a terminal
    sends the bytes of one key together.
    """
    pressed = os.read(fd, 256)
    if not pressed:
        return ["end"]
    keys = _KEY.findall(pressed.decode("utf-8", "replace"))
    return [_NAMES.get(key) or key.lower() for key in keys]
