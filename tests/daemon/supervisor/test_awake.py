"""The sleep assertion, held by a program that stands in for caffeinate."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.supervisor.awake import Awake, awake_command
from tests.e2e.service import eventually

STAND_IN = """#!/bin/sh
# Like caffeinate -i -w PID: runs until it is told to end, or until PID has ended.
echo "$$ $*" >> {said}
trap 'echo "$$ ended" >> {said}; exit 0' TERM
while kill -0 "$3" 2>/dev/null; do sleep 0.05; done
echo "$$ left alone" >> {said}
"""


class Caffeinate:
    """The stand-in, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "caffeinate"
        self.said_to = folder / "said"
        self.path.write_text(STAND_IN.format(said=self.said_to))
        self.path.chmod(0o755)

    def which(self, program: str) -> str | None:
        return str(self.path) if program == "caffeinate" else None

    def said(self) -> list[str]:
        lines = self.said_to.read_text().splitlines() if self.said_to.exists() else []
        return [line.partition(" ")[2] for line in lines]


@pytest.fixture
def caffeinate(tmp_path: Path) -> Caffeinate:
    return Caffeinate(tmp_path)


def says(caffeinate: Caffeinate, *expected: str) -> None:
    eventually(caffeinate.said, lambda lines: lines == [*expected])


def test_it_is_held_once_while_it_is_wanted(caffeinate: Caffeinate) -> None:
    pid = os.getpid()
    with Awake(awake_command("darwin", pid, caffeinate.which)) as awake:
        awake.keep(wanted=False)
        assert not awake.is_held
        awake.keep(wanted=True)
        says(caffeinate, f"-i -w {pid}")
        awake.keep(wanted=True)
        awake.keep(wanted=False)
        assert not awake.is_held
        assert caffeinate.said() == [f"-i -w {pid}", "ended"]
        awake.keep(wanted=True)
        says(caffeinate, f"-i -w {pid}", "ended", f"-i -w {pid}")
    assert caffeinate.said()[3:] == ["ended"], "with the block"


HOLD = """
import os, sys
from daemon.supervisor.awake import Awake, awake_command
awake = Awake(awake_command("darwin", os.getpid(), lambda _: sys.argv[1]))
awake.keep(wanted=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_daemon_does_not_keep_the_machine_awake(caffeinate: Caffeinate) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(caffeinate.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        eventually(caffeinate.said, lambda lines: len(lines) == 1)
        process.send_signal(signal.SIGKILL)
    eventually(caffeinate.said, lambda lines: lines[-1] == "left alone")


@pytest.mark.parametrize("command", [None, ("/no/such/program",), ("false",)])
def test_where_it_cannot_be_held_it_is_tried_once(
    command: tuple[str, ...] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    awake = Awake(command)

    def is_given_up() -> bool:
        awake.keep(wanted=True)
        return not awake.is_held

    eventually(is_given_up, bool)
    for _ in range(3):
        awake.keep(wanted=True)
    awake.keep(wanted=False)
    assert capsys.readouterr().out.count("awake.impossible") == (command is not None)


def having(*programs: str) -> Callable[[str], str | None]:
    return lambda program: f"/usr/bin/{program}" if program in programs else None


def test_the_display_may_sleep() -> None:
    assert awake_command("darwin", 7, having("caffeinate")) == (
        "/usr/bin/caffeinate",
        "-i",
        "-w",
        "7",
    )


def test_linux_with_logind_and_without() -> None:
    command = awake_command("linux", 7, having("systemd-inhibit", "tail"))
    assert command is not None
    assert command[0] == "/usr/bin/systemd-inhibit"
    assert command[-4:] == ("/usr/bin/tail", "--pid=7", "-f", "/dev/null")
    assert awake_command("linux", 7, having("tail")) is None
    assert awake_command("darwin", 7, having()) is None
