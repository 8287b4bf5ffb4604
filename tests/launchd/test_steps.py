"""Steps of an installer, each with what it does and how it fails."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.locks import held
from launchd import steps
from launchd.steps import (
    Command,
    EndHolder,
    MakeFolder,
    Ran,
    Remove,
    RemoveIfEmpty,
    UntilFails,
    UntilFree,
    UntilHeld,
    WriteFile,
    carry_out,
    last_lines,
    run_program,
    told,
)


class Answers:
    """A tool that answers with these exit codes, the last one for ever."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.asked = 0

    def __call__(self, argv: tuple[str, ...]) -> Ran:
        self.asked += 1
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        return Ran(code, f"code {code}")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits at which tests can fail in time."""
    monkeypatch.setattr(steps, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(steps, "START_S", 0.3)
    monkeypatch.setattr(steps, "END_S", 0.3)


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x.plist"
    carry_out([WriteFile(path, b"one")])
    inode = path.stat().st_ino
    with path.open("rb") as reader:
        carry_out([WriteFile(path, b"two")])
        assert reader.read() == b"one", "who reads it meanwhile reads one of the two"
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["x.plist"]


def test_removing_is_of_files_folders_and_nothing(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    (folder / "inner").mkdir(parents=True)
    file.touch()
    target = tmp_path / "target"
    target.mkdir()
    link.symlink_to(target)
    carry_out([RemoveIfEmpty(folder), RemoveIfEmpty(tmp_path / "gone")])
    assert folder.exists()
    carry_out([Remove(folder), Remove(file), Remove(link), Remove(tmp_path / "gone")])
    assert list(tmp_path.iterdir()) == [target], "a link goes, what it leads to stays"
    carry_out([RemoveIfEmpty(target)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_private(tmp_path: Path) -> None:
    carry_out([MakeFolder(tmp_path / "a" / "b")] * 2)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("codes", "asked"), [((0,), 1), ((3,), 1), ((5, 37, 5, 0), 4), ((37, 3), 2)]
)
def test_a_command_that_succeeds_in_the_end(codes: tuple[int, ...], asked: int) -> None:
    tool = Answers(*codes)
    carry_out([Command(("x",), accepted=frozenset({3}), retried=frozenset({5, 37}))], tool)
    assert tool.asked == asked


@pytest.mark.parametrize(("codes", "asked"), [((1,), 1), ((5,), steps.RETRIES_MAX), ((5, 1), 2)])
def test_a_command_that_fails_is_told_as_a_shell_takes_it(
    codes: tuple[int, ...], asked: int
) -> None:
    tool = Answers(*codes)
    with pytest.raises(MlxdError) as failed:
        carry_out([Command(("x", "a b"), retried=frozenset({5}))], tool)
    assert failed.value.code is Code.INTERNAL
    said = failed.value.fault.message
    assert said == f"'x 'a b'' ended with exit code {codes[-1]}: code {codes[-1]}"
    assert tool.asked == asked


def test_what_comes_after_a_failure_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(MlxdError):
        carry_out([Command(("x",)), WriteFile(tmp_path / "y", b"")], Answers(1))
    assert not (tmp_path / "y").exists()


def test_waiting_until_a_question_is_answered_with_no() -> None:
    tool = Answers(0, 0, 113)
    carry_out([UntilFails(("x",))], tool)
    assert tool.asked == 3
    with pytest.raises(MlxdError, match="x still succeeds") as failed:
        carry_out([UntilFails(("x",))], Answers(0))
    assert failed.value.code is Code.DEADLINE


def test_waiting_for_a_lock_to_be_free(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    carry_out([UntilFree(lock)])
    with held(lock), pytest.raises(MlxdError, match="goes on"):
        carry_out([UntilFree(lock)])


def test_waiting_for_a_program_to_run(tmp_path: Path) -> None:
    lock, log = tmp_path / "x.lock", tmp_path / "x.log"
    log.write_text("first\nsecond\n")
    tool = Answers(0)
    with held(lock):
        carry_out([UntilHeld(lock, log, ("start",))], tool)
    assert tool.asked == 0
    with pytest.raises(MlxdError, match="ends with: first / second") as failed:
        carry_out([UntilHeld(lock, log, ("start",))], tool)
    assert failed.value.fault.hint == "mend what it says, then: mlxctl service restart"
    assert tool.asked == 3, "asked to start now and then, since once may have been too early"


def test_who_complains_is_waited_for_less_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "START_S", 1000)
    monkeypatch.setattr(steps, "COMPLAINED_S", 0.2)
    lock, log = tmp_path / "x.lock", tmp_path / "x.log"

    def complains(argv: tuple[str, ...]) -> Ran:
        log.write_text("no such setting\n")
        return Ran(0, "")

    with pytest.raises(MlxdError, match="ends with: no such setting"):
        carry_out([UntilHeld(lock, log, ("start",))], complains)


HOLD = """
import sys
from pathlib import Path
from daemon.wire.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_of_a_lock_is_ended(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    carry_out([EndHolder(lock)])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        text = lock.read_text()
        lock.write_text("")
        with pytest.raises(MlxdError, match="does not say which"):
            carry_out([EndHolder(lock)])
        assert process.poll() is None
        lock.write_text(text)
        carry_out([EndHolder(lock)])
        assert process.wait() == -signal.SIGTERM
    lock.write_text(f'{{"pid":{os.getpid()}}}')
    carry_out([EndHolder(lock)])  # a pid that nobody stands behind is no pid to signal
    with held(lock):
        lock.write_text(f'{{"pid":{process.pid}}}')
        carry_out([EndHolder(lock)])  # it ended in this very moment


def test_programs_of_the_system() -> None:
    ran = run_program(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert ran == Ran(3, "out\nerr")
    with pytest.raises(MlxdError, match="cannot run no-such-program") as failed:
        run_program(("no-such-program",))
    assert failed.value.code is Code.NOT_FOUND


def test_the_end_of_a_log_whatever_is_in_it(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log) == []
    log.write_bytes(b"1\n\xff\n3\n")
    assert last_lines(log, 2) == ["\ufffd", "3"]


def test_every_step_can_be_told() -> None:
    path = Path("/x")
    assert [
        told(step)
        for step in (
            MakeFolder(path),
            WriteFile(path, b""),
            Remove(path),
            RemoveIfEmpty(path),
            Command(("a", "b c")),
            UntilFails(("a",)),
            UntilFree(path),
            UntilHeld(path, path, ("a",)),
            EndHolder(path),
        )
    ] == [
        "make the folder /x",
        "write /x",
        "remove /x",
        "remove /x if it is empty",
        "run: a 'b c'",
        "wait until this fails: a",
        "wait until /x is free",
        "wait until /x is held",
        "send SIGTERM to the process that holds /x",
    ]
