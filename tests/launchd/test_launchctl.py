"""What launchd is asked: exit codes alone, but for the one thing that only a text tells."""

from pathlib import Path

import pytest

from launchd.launchctl import LaunchAgents, agents_folder
from launchd.parts import Part
from launchd.steps import Ran, told

AGENTS = LaunchAgents("gui/501")
PART = Part(
    program="mlxd",
    name="org.mlxd.daemon",
    files={Path("/u/org.mlxd.daemon.plist"): b""},
    lock=Path("/run/mlxd.lock"),
    boot_log=Path("/logs/daemon.boot.log"),
)


def answering(code: int, said: str = "") -> Ran:
    return Ran(code, said)


@pytest.mark.parametrize(
    ("code", "said", "enabled"),
    [
        (0, '\t"org.mlxd.daemon" => disabled', False),
        (0, '\t"org.mlxd.daemon" => true', False),
        (0, '\t"org.mlxd.daemon" => enabled', True),
        (0, '\t"org.mlxd.daemon" => false', True),
        (0, '\t"org.mlxd.daemon.other" => disabled', True),
        (0, "disabled services = {\n}", True),
        (125, "", None),
    ],
)
def test_enabled_in_the_spellings_of_several_systems(
    code: int, said: str, enabled: bool | None
) -> None:
    assert AGENTS.is_enabled(PART, lambda argv: answering(code, said)) is enabled


def test_loaded_is_that_it_can_be_printed() -> None:
    asked: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...]) -> Ran:
        asked.append(argv)
        return answering(113, "the text is not read: state = running")

    assert not AGENTS.is_loaded(PART, run)
    assert AGENTS.unavailable(run) is not None
    assert asked == [
        ("launchctl", "print", "gui/501/org.mlxd.daemon"),
        ("launchctl", "print", "gui/501"),
    ]


def test_a_disabled_agent_is_enabled_before_it_is_loaded() -> None:
    assert [told(step) for step in AGENTS.load(PART)] == [
        "run: launchctl enable gui/501/org.mlxd.daemon",
        "run: launchctl bootstrap gui/501 /u/org.mlxd.daemon.plist",
        "run: launchctl kickstart gui/501/org.mlxd.daemon",
    ]


def test_an_unload_is_waited_for() -> None:
    assert [told(step) for step in AGENTS.unload(PART)] == [
        "run: launchctl bootout gui/501/org.mlxd.daemon",
        "wait until this fails: launchctl print gui/501/org.mlxd.daemon",
    ]


def test_a_restart_asks_the_program_to_end_and_never_kills_it() -> None:
    assert [told(step) for step in AGENTS.restart(PART)] == [
        "run: launchctl kill SIGTERM gui/501/org.mlxd.daemon",
        "wait until /run/mlxd.lock is free",
        "run: launchctl kickstart gui/501/org.mlxd.daemon",
    ]


def test_where_launchd_looks() -> None:
    assert agents_folder(Path("/Users/ada")) == Path("/Users/ada/Library/LaunchAgents")
