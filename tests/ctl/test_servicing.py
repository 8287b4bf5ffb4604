"""The service's page: what is so, and for what is wrong the next step."""

from pathlib import Path

import msgspec

from ctl.plain import plain
from ctl.servicing import plan_page, plan_shape, state_page, state_shape
from launchd.service import PartState
from launchd.steps import Command, WriteFile

FINE = PartState(
    program="mlxd",
    name="org.mlxd.daemon",
    installed=True,
    current=True,
    enabled=True,
    loaded=True,
    pid=812,
    files=("/Users/ada/Library/LaunchAgents/org.mlxd.daemon.plist",),
    boot_log="/Users/ada/Library/Logs/mlxd/daemon.boot.log",
    said=(),
)


def page(*states: PartState, unavailable: str | None = None) -> list[str]:
    return plain(state_page("launchd", states, unavailable)).splitlines()


def changed(**fields: object) -> PartState:
    return msgspec.structs.replace(FINE, **fields)


def test_a_service_that_is_as_it_should_be_needs_no_advice() -> None:
    assert page(FINE, changed(program="mlx-bridge", pid=813)) == [
        "PROGRAM     INSTALLED  ENABLED  LOADED  RUNNING",
        "mlxd        yes        yes      yes     pid 812",
        "mlx-bridge  yes        yes      yes     pid 813",
    ]


def test_nothing_is_installed() -> None:
    nothing = changed(installed=False, current=False, enabled=False, loaded=False, pid=None)
    assert page(nothing, nothing)[1:] == [
        "mlxd     no         no       no      no",
        "mlxd     no         no       no      no",
        "",
        "To install what is missing: mlxctl service install",
    ]


def test_every_state_that_is_wrong_has_a_next_step() -> None:
    steps = {
        "mlxctl service enable": changed(enabled=False),
        "the next login: mlxctl service start": changed(loaded=False, pid=None),
        "mlxctl service start takes over": changed(loaded=False),
        "another version: mlxctl service restart": changed(current=False),
        "when somebody connects": changed(pid=None),
    }
    for expected, state in steps.items():
        _, _, empty, line = page(state)
        assert (empty, expected in line) == ("", True), line


def test_a_program_that_cannot_start_is_heard() -> None:
    lines = page(changed(pid=None, said=("mlxd: config.toml:2: http.prot: unknown key",)))
    assert lines[1] == "mlxd     yes        yes      yes     no"
    assert lines[3:] == [
        "mlxd could not start. The end of /Users/ada/Library/Logs/mlxd/daemon.boot.log:",
        "  mlxd: config.toml:2: http.prot: unknown key",
        "Mend what it says, then: mlxctl service restart; mlxctl config check may help",
    ]


def test_what_cannot_be_told_is_not_guessed() -> None:
    assert page(changed(enabled=None))[1] == "mlxd     yes        unknown  yes     pid 812"
    assert page(changed(pid=0))[1].endswith("pid ?")
    assert page(changed(current=False))[1].startswith("mlxd     outdated")
    said = page(changed(loaded=False), unavailable="no session")[-1]
    assert said == "launchd cannot be asked: no session"


def test_the_shape_has_everything() -> None:
    shape = state_shape("launchd", [FINE], None)
    assert shape["programs"] == [msgspec.to_builtins(FINE)]
    assert (shape["v"], shape["manager"], shape["unavailable"]) == (1, "launchd", None)


def test_a_plan_shows_what_would_be_written() -> None:
    steps = (WriteFile(Path("/u/x.plist"), b"<plist/>\n"), Command(("launchctl", "enable", "x")))
    assert plain(plan_page(steps)).splitlines() == [
        "write /u/x.plist",
        "run: launchctl enable x",
        "",
        "/u/x.plist:",
        "<plist/>",
    ]
    assert plan_shape(steps) == {
        "v": 1,
        "steps": ["write /u/x.plist", "run: launchctl enable x"],
        "files": {"/u/x.plist": "<plist/>\n"},
    }
    assert plain(plan_page(())) == "nothing to do\n"
