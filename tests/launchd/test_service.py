"""The installer against service managers that answer as launchd and systemd do."""

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from daemon.__main__ import _ready as daemon_is_ready
from daemon.wire.errors import Code, MlxdError
from daemon.wire.locks import held
from daemon.wire.paths import find_home
from daemon.wire.settings import HttpSettings
from http_bridge.run import _announce as bridge_is_ready
from launchd import steps
from launchd.local import this_service
from launchd.service import READY, STATE_FILES, PartState, Service
from launchd.steps import Ran, Step, UntilHeld, carry_out, told
from tests.architecture.tree import modules
from tests.e2e.service import eventually
from tests.fakes.managers.running import TOOLS, Kind, RunningManager, running_manager
from tests.launchd.stub import write_stub


class Machine:
    """A user's machine, with programs that start at once."""

    def __init__(self, manager: RunningManager) -> None:
        self.manager = manager
        self.home = find_home(manager.environ, sys.platform)
        self.python = write_stub(manager.folder)
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: tuple[str, ...]) -> Ran:
        assert argv[0] == TOOLS[self.manager.kind]
        self.asked.append(argv)
        return Ran(*self.manager.ask(*argv[1:]))

    def service(self, http: HttpSettings | None = None, **environ: str) -> Service:
        given = self.manager.environ | environ
        return this_service(
            self.home, http or HttpSettings(port=0x7E57), given, self.python, self.which, self.run
        )

    def which(self, program: str) -> str | None:
        return program if program == TOOLS[self.manager.kind] else None

    def do(self, steps: Sequence[Step]) -> list[str]:
        carry_out(steps, self.run)
        return [told(step) for step in steps]

    def states(self) -> list[tuple[bool, bool, bool | None, bool, bool]]:
        return [four(state) for state in self.service().state()]


def four(state: PartState) -> tuple[bool, bool, bool | None, bool, bool]:
    """Installed and current, enabled, loaded, running."""
    return (state.installed, state.current, state.enabled, state.loaded, state.pid is not None)


@pytest.fixture(params=["launchd", "systemd"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    kind: Kind = request.param
    with running_manager(kind) as manager:
        yield Machine(manager)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that start at once are looked for more often."""
    monkeypatch.setattr(steps, "LOOK_EVERY_S", 0.02)


NOTHING = (False, False, False, False, False)
ALL = (True, True, True, True, True)


def test_installed_enabled_loaded_and_running_are_four_things(machine: Machine) -> None:
    service = machine.service()
    assert machine.states() == [NOTHING] * 2
    assert not service.is_installed
    machine.do(service.install())
    assert machine.states() == [ALL] * 2
    assert service.is_installed
    machine.do(service.disable())
    assert machine.states() == [(True, True, False, True, True)] * 2
    machine.do(service.stop())
    assert machine.states() == [(True, True, False, False, False)] * 2
    machine.do(service.start())
    enabled = machine.manager.kind == "launchd"  # which loads nothing that is not
    assert machine.states() == [(True, True, enabled, True, True)] * 2
    machine.do(service.enable())
    machine.do(service.uninstall(purge=False))
    assert machine.states() == [NOTHING] * 2
    assert machine.manager.ask("test", "loaded") == (0, "")


def test_asking_twice_does_nothing_more(machine: Machine) -> None:
    machine.do(machine.service().install())
    pids = [state.pid for state in machine.service().state()]
    again = [
        step for step in machine.service().install() if not told(step).startswith("make the folder")
    ]
    assert [type(step) for step in again] == [UntilHeld, UntilHeld]
    assert [state.pid for state in machine.service().state()] == pids


def test_a_plan_changes_nothing(machine: Machine) -> None:
    steps = machine.service().install()
    assert any(told(step).startswith("write ") for step in steps)
    assert machine.states() == [NOTHING] * 2
    assert list(machine.manager.user_home.rglob("*.*")) == []


def test_changed_settings_are_installed_over_old_ones(machine: Machine) -> None:
    """On launchd through a bootout that is not over at once, and refused bootstraps after it."""
    machine.do(machine.service().install())
    before = [state.pid for state in machine.service().state()]
    changed = machine.service(HttpSettings(port=0x7E58))
    assert [state.current for state in changed.state()] == [True, False]
    machine.do(changed.install())
    after = changed.state()
    assert [four(state) for state in after] == [ALL] * 2
    assert after[0].pid == before[0], "what has not changed goes on"
    assert after[1].pid != before[1]
    if machine.manager.kind == "launchd":
        asked = [argv[1] for argv in machine.asked]
        assert asked.count("bootstrap") == 2 + 3, "refused with 37, then with 5, then taken"


def test_a_restart_keeps_the_sockets(machine: Machine) -> None:
    machine.do(machine.service().install())
    inode = machine.home.control_socket.stat().st_ino
    before = {state.pid for state in machine.service().state()}
    done = machine.do(machine.service().restart())
    assert not any(word in line for line in done for word in ("bootout", "stop"))
    assert machine.home.control_socket.stat().st_ino == inode
    assert not before & {state.pid for state in machine.service().state()}


def test_files_that_others_could_change_are_not_written(machine: Machine) -> None:
    before = os.umask(0)
    try:
        machine.do(machine.service().install())
    finally:
        os.umask(before)
    for state in machine.service().state():
        for file in map(Path, state.files):
            assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(machine.home.run_dir.stat().st_mode) == 0o700


def test_a_program_that_does_not_start_says_why(machine: Machine) -> None:
    machine.home.root.mkdir(mode=0o700)
    (machine.home.root / "broken").touch()
    steps = [step for step in machine.service().install() if not isinstance(step, UntilHeld)]
    machine.do(steps)
    daemon, bridge = eventually(
        machine.service().state, lambda states: all(state.said for state in states)
    )
    assert four(daemon) == (True, True, True, True, False)
    assert set(daemon.said) | set(bridge.said) == {"it is broken"}


def test_what_a_program_said_before_it_was_ready_is_no_complaint(machine: Machine) -> None:
    machine.do(machine.service().install())
    boot = Path(machine.service().state()[0].boot_log)
    boot.write_text('old trouble\n{"event": "daemon.ready", "pid": 1}\n')
    machine.do([s for s in machine.service().stop() if "mlx-bridge" not in told(s)])
    assert machine.service().state()[0].said == ()


def test_both_programs_say_so_when_they_are_ready(capfd: pytest.CaptureFixture[str]) -> None:
    """Else what they said before would be taken for the reason why they do not run."""
    daemon_is_ready(Path("/run/mlxd.sock"))
    bridge_is_ready("127.0.0.1", 11411)
    daemon, bridge = (
        line for line in capfd.readouterr().out.splitlines() if line.startswith(READY)
    )
    assert ("daemon.ready" in daemon, "bridge.listening" in bridge) == (True, True)


def test_a_daemon_started_by_hand_is_ended_first(machine: Machine) -> None:
    machine.home.run_dir.mkdir(mode=0o700, parents=True)
    by_hand = subprocess.Popen([machine.python, "daemon"], env=machine.manager.environ)
    eventually(lambda: machine.service().state()[0].pid, lambda pid: pid == by_hand.pid)
    assert four(machine.service().state()[0]) == (False, False, False, False, True)
    machine.do(machine.service().install())
    assert by_hand.wait(20) == 0
    assert machine.states() == [ALL] * 2


def test_an_address_that_is_taken_is_told_before_anything_is_done(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = HttpSettings(port=other.getsockname()[1])
        with pytest.raises(MlxdError, match="mlx-bridge started by hand") as refused:
            machine.service(taken).install()
    assert refused.value.code is Code.CONFLICT
    assert machine.states() == [NOTHING] * 2


def test_a_purge_leaves_what_is_not_ours(machine: Machine) -> None:
    machine.do(machine.service().install())
    home = machine.home
    (home.events_dir).mkdir()
    for ours in (home.config_file, home.events_dir / "1.jsonl", home.logs_dir / "daemon.log.1"):
        ours.write_text("x")
    theirs = home.root / "models" / "mine.safetensors"
    theirs.parent.mkdir()
    theirs.write_text("x")
    machine.do(machine.service().uninstall(purge=True))
    left = [path for path in machine.manager.user_home.rglob("*") if path.is_file()]
    assert left == [theirs]


def test_a_purge_knows_every_file_that_a_program_keeps_in_the_root() -> None:
    kept = {
        name
        for module in modules("daemon", "ctl", "http_bridge")
        for name in re.findall(r'home\.root / "([^"]+)"', module.text)
    }
    assert kept == set(STATE_FILES)


def test_a_purge_waits_for_whoever_uses_the_files(machine: Machine) -> None:
    machine.home.run_dir.mkdir(mode=0o700, parents=True)
    with held(machine.home.daemon_lock):
        with pytest.raises(MlxdError, match="end it first") as refused:
            machine.service().uninstall(purge=True)
        machine.do(machine.service().uninstall(purge=False))
    assert refused.value.code is Code.CONFLICT


def test_verbs_of_a_service_that_is_not_there(machine: Machine) -> None:
    for verb in ("start", "stop", "restart", "enable", "disable"):
        with pytest.raises(MlxdError, match="not installed") as refused:
            getattr(machine.service(), verb)()
        assert refused.value.fault.hint == "install it: mlxctl service install"
    machine.do(machine.service().uninstall(purge=False))


def test_without_a_login_session(machine: Machine) -> None:
    machine.service().check()
    machine.manager.ask("test", "session", "no")
    with pytest.raises(MlxdError) as refused:
        machine.service().check()
    assert refused.value.code is Code.CONFLICT
    expected = {"launchd": "Screen Sharing", "systemd": "loginctl enable-linger"}
    assert expected[machine.manager.kind] in refused.value.fault.message
