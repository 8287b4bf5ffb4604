"""The ends of the program: a reader that goes away, and Ctrl-C wherever it comes."""

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import LINES, status
from tests.fakes.control import Asked, Part, open_scripted_control, says
from tests.fakes.daemon import FakeModel, open_fake_daemon
from tests.fakes.daemon import says as answers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["version"], ["--help"]])
async def test_nobody_reads(mlxctl: Ctl, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status())}
    with os.fdopen(writer, "wb") as theirs:
        async with (
            open_scripted_control(mlxctl.socket, script),
            mlxctl.started(*arguments, stdout=theirs.fileno()) as process,
        ):
            assert process.stderr is not None
            err = b"".join([chunk async for chunk in process.stderr])
            code = await process.wait()

    assert (code, err) == (141, b"")


NO_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
CLOSED = pytest.param(">&-", "Bad file descriptor")
FULL = pytest.param(">/dev/full", "No space left on device", marks=NO_FULL)


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(("to", "why"), [CLOSED, FULL])
@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--json"], ["--help"], ["completion", "bash"]]
)
async def test_stdout_that_cannot_be_written(
    mlxctl: Ctl, arguments: list[str], to: str, why: str, buffered: str
) -> None:
    said = f"stdout cannot be written: {why}"
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status())}
    mlxctl.always["PYTHONUNBUFFERED"] = buffered
    async with open_scripted_control(mlxctl.socket, script):
        code, err = await redirected(mlxctl, *arguments, to=to)

    assert code == 1
    if "--json" in arguments:
        assert json.loads(err) == {"v": 1, "error": {"code": "internal", "message": said}}
    else:
        assert err == f"mlxctl: {said}\n"


@pytest.mark.parametrize(("to", "why"), [CLOSED, FULL])
async def test_output_that_fails_in_the_middle_of_a_conversation(
    mlxctl: Ctl, to: str, why: str
) -> None:
    record, end = c.LogRecord(id=0, seq=1, line=LINES[0]), c.WatchEnded(id=0, reason="end", seq=1)
    script: dict[type[c.Request], Part] = {
        c.GetStatus: says(status(seq=1)),
        c.WatchEvents: says(record, end),
    }
    async with open_scripted_control(mlxctl.socket, script):
        code, err = await redirected(mlxctl, "events", to=to)

    assert (code, err) == (1, f"mlxctl: stdout cannot be written: {why}\n")


TWICE_FULL = pytest.param(">/dev/full 2>/dev/full", marks=NO_FULL)


@pytest.mark.parametrize("to", [">&- 2>&-", TWICE_FULL, "<&- >&- 2>&-"])
async def test_nothing_can_be_written_at_all(mlxctl: Ctl, to: str) -> None:
    assert (await redirected(mlxctl, "--help", to=to))[0] == 1


async def test_a_closed_stdin_and_stderr_are_as_if_empty(mlxctl: Ctl) -> None:
    code, err = await redirected(mlxctl, "run", "tiny", to="<&-")

    assert (code, err.startswith("mlxctl: the prompt is empty;")) == (2, True)
    assert await redirected(mlxctl, "run", "tiny", to="<&- 2>&-") == (2, "")


NOT_TEXT = "b\udce9"
"""What an argument is to Python whose byte 0xe9 is not UTF-8."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", NOT_TEXT],
        ["load", f"./{NOT_TEXT}"],
        ["load", f"./{NOT_TEXT}", "--name", "a", "--estimate"],
        ["load", "./a", "--name", NOT_TEXT],
        ["unload", NOT_TEXT],
        ["evict", NOT_TEXT],
        ["pin", NOT_TEXT],
        ["unpin", NOT_TEXT],
        ["ttl", NOT_TEXT, "5m"],
        ["unquarantine", NOT_TEXT],
        ["bench", NOT_TEXT],
        ["run", NOT_TEXT, "hello"],
        ["run", "tiny", NOT_TEXT],
        ["run", "tiny", "hello", "--system", NOT_TEXT],
        ["run", "tiny", "hello", "--stop", NOT_TEXT],
    ],
)
async def test_arguments_that_are_not_utf_8(mlxctl: Ctl, arguments: list[str]) -> None:
    for name in (NOT_TEXT, "a"):
        (mlxctl.home / name).mkdir()
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", answers("ok"))) as daemon:
        ended = await mlxctl(*arguments)
        as_json = await mlxctl(*arguments, "--json")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("mlxctl: ")
    assert "is not UTF-8 text; " in ended.err
    assert "Traceback" not in ended.err
    fault = json.loads(as_json.err)["error"]
    assert (as_json.code, fault["code"]) == (2, "invalid_request")
    assert "is not UTF-8 text; " in fault["message"]
    assert not daemon.acquired, "nothing was loaded for it"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status", NOT_TEXT], 2),
        (["load", f"./no-{NOT_TEXT}"], 4),
        (["status", "--at", NOT_TEXT], 2),
        (["logs", "worker", NOT_TEXT], 4),
        (["log", "verify", "--events", f"./no-{NOT_TEXT}"], 4),
        (["run", "tiny", "hello", "--image", NOT_TEXT], 2),
        (["rm", NOT_TEXT, "--yes"], 4),
    ],
)
async def test_a_failure_that_names_such_a_thing_is_still_told(
    mlxctl: Ctl, arguments: list[str], code: int
) -> None:
    ended, as_json = await mlxctl(*arguments), await mlxctl(*arguments, "--json")

    assert (ended.code, as_json.code, ended.out, as_json.out) == (code, code, "", "")
    assert ended.err.startswith("mlxctl: ")
    assert "Traceback" not in ended.err
    assert json.loads(as_json.err)["error"]["message"]


async def redirected(mlxctl: Ctl, *arguments: str, to: str) -> tuple[int, str]:
    """Run with streams as a shell's redirections have them; the exit code, and stderr."""
    done = await anyio.run_process(
        ["/bin/sh", "-c", f'exec "$@" {to}', "sh", *mlxctl.argv(*arguments)],
        check=False,
        cwd=mlxctl.home,
        env=mlxctl.environ(),
    )
    return done.returncode, done.stderr.decode()


async def test_ctrl_c_while_the_daemon_says_nothing(mlxctl: Ctl) -> None:
    async def say_nothing(_asked: Asked) -> None:
        return

    script: dict[type[c.Request], Part] = {c.GetStatus: say_nothing}
    async with (
        open_scripted_control(mlxctl.socket, script) as daemon,
        mlxctl.started("status") as process,
    ):
        await daemon.until(lambda: bool(daemon.requests))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = b"".join([chunk async for chunk in process.stderr])
        code = await process.wait()

    assert code == 130
    assert err == b"mlxctl: interrupted; what it asked for is withdrawn\n"


async def test_a_terminal_that_cannot_show_a_character_gets_a_question_mark(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {c.GetStatus: says(status(home="/home/ada/größe"))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("status", PYTHONIOENCODING="ascii")

    assert ended.code == 0
    assert "home /home/ada/gr??e\n" in ended.out
