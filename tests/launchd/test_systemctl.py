"""What systemd's user manager is asked; the commands are checked by systemctl where it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from launchd.parts import Part
from launchd.steps import Command, Ran
from launchd.systemctl import UserUnits, units_folder

UNITS = UserUnits()
PART = Part(
    program="mlxd",
    name="mlxd",
    files={},
    lock=Path("/run/mlxd.lock"),
    boot_log=Path("/logs/daemon.boot.log"),
)


def commands() -> list[tuple[str, ...]]:
    """Every command that it can give."""
    steps = [
        *UNITS.load(PART),
        *UNITS.unload(PART),
        *UNITS.restart(PART),
        *UNITS.enable(PART),
        *UNITS.disable(PART),
        *UNITS.forget(),
    ]
    return [step.argv for step in steps if isinstance(step, Command)]


def test_a_service_is_never_stopped_without_its_socket() -> None:
    (stop,) = UNITS.unload(PART)
    assert isinstance(stop, Command)
    assert stop.argv == ("systemctl", "--user", "stop", "mlxd.socket", "mlxd.service")


def test_a_restart_leaves_the_socket() -> None:
    (restart,) = UNITS.restart(PART)
    assert isinstance(restart, Command)
    assert restart.argv == ("systemctl", "--user", "restart", "mlxd.service")


def test_the_reason_why_it_does_not_answer_is_passed_on() -> None:
    def run(argv: tuple[str, ...]) -> Ran:
        return Ran(1, "Failed to connect to bus: No medium found")

    said = UNITS.unavailable(run)
    assert said is not None
    assert "No medium found" in said
    assert "loginctl enable-linger" in said
    assert UNITS.unavailable(lambda argv: Ran(0, "Version=252")) is None


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")
def test_systemctl_knows_every_verb_and_option(tmp_path: Path) -> None:
    """Without a manager it ends for want of a bus, and not with a word about the command."""
    questions: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...]) -> Ran:
        questions.append(argv)
        return Ran(0, "")

    UNITS.unavailable(run)
    UNITS.is_loaded(PART, run)
    UNITS.is_enabled(PART, run)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C"}
    for argv in [*questions, *commands()]:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert "Unknown" not in done.stderr, done.stderr
        assert "option" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.config/systemd/user"),
        ({"XDG_CONFIG_HOME": "/conf"}, "/conf/systemd/user"),
        ({"XDG_CONFIG_HOME": "relative"}, "/home/ada/.config/systemd/user"),
    ],
)
def test_where_systemd_looks(environ: dict[str, str], expected: str) -> None:
    assert units_folder(environ, Path("/home/ada")) == Path(expected)
