"""What a person sees: mlxctl on a real pseudo-terminal."""

import os
import pty
import re

import anyio
import anyio.to_thread
import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from tests.ctl.conftest import Ctl
from tests.ctl.views import LINES, known, status
from tests.fakes.control import Asked, Part, open_scripted_control, says
from tests.fakes.daemon import FakeModel, Line, open_fake_daemon

pytestmark = pytest.mark.anyio

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def without_codes(text: str) -> str:
    return _CODES.sub("", text)


async def on_terminal(mlxctl: Ctl, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run mlxctl with stdin, stdout and stderr on a terminal of its own."""
    ours, theirs = pty.openpty()
    try:
        process = await anyio.open_process(
            mlxctl.argv(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=mlxctl.home,
            env=mlxctl.environ(**{"TERM": "xterm-256color", "COLUMNS": "100"} | environ),
        )
    finally:
        os.close(theirs)
    async with process:
        text = await anyio.to_thread.run_sync(_read_all, ours)
        return await process.wait(), text.replace("\r\n", "\n")


def _read_all(fd: int) -> str:
    chunks = []
    try:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # Linux ends a terminal whose other side is closed with EIO
    os.close(fd)
    return b"".join(chunks).decode()


STATUS: dict[type[c.Request], Part] = {c.GetStatus: says(status(warnings=("look out",)))}


async def test_status_is_drawn_in_colour(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, STATUS):
        code, text = await on_terminal(mlxctl, "status")

    assert code == 0
    assert "\x1b[32midle" in text
    assert "\x1b[33mWarning: look out" in text
    lines = without_codes(text).splitlines()
    assert re.search(r"Memory ━*╸?╺?━* 1\.20 GB of 24\.0 GB \(5 %\), 22\.8 GB free", lines[1])
    assert lines[3].split() == ["NAME", "STATE", "SIZE", "CONTEXT", "LEASES", "TOK/S", "UNTIL"]
    assert lines[4].split() == ["mlxd/glimpse", "idle", "1.20", "GB", "2,048", "0", "-", "in", "5m"]


async def test_no_color_is_honoured(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, STATUS):
        code, text = await on_terminal(mlxctl, "status", NO_COLOR="1")

    assert code == 0
    colours = {code for found in re.findall(r"\x1b\[([0-9;]*)m", text) for code in found.split(";")}
    assert colours <= {"0", "1", "2"}, "bold and dim are no colours"


async def test_a_dumb_terminal_gets_plain_text(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, STATUS):
        _, text = await on_terminal(mlxctl, "status", TERM="dumb")

    assert "\x1b" not in text
    assert "Memory: 1.20 GB of 24.0 GB" in text


async def test_json_is_never_coloured(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, STATUS):
        _, text = await on_terminal(mlxctl, "status", "--json")

    assert "\x1b" not in text
    assert text.startswith('{"v":1,')


async def test_a_load_shows_its_progress_and_clears_it_away(mlxctl: Ctl) -> None:
    async def load(asked: Asked) -> None:
        step = c.Progress(
            id=0,
            model="tiny",
            phase="loading",
            done_bytes=500_000_000,
            total_bytes=1_000_000_000,
            eta_ms=2000,
        )
        loaded = c.Loaded(id=0, model="tiny", worker="w", load_ms=840, measured_bytes=10**9)
        await asked.answer(c.Progress(id=0, model="tiny", phase="queued"), step, loaded)

    script: dict[type[c.Request], Part] = {c.LoadModel: load}
    async with open_scripted_control(mlxctl.socket, script):
        code, text = await on_terminal(mlxctl, "load", "tiny")

    assert code == 0
    shown = without_codes(text)
    assert "loading tiny" in shown
    assert "500 MB of 1.00 GB" in shown
    assert "about 2 s left" in shown
    assert text.endswith("tiny is loaded: 1.00 GB in 840 ms\n")
    assert "\x1b[?25h" in text, "the cursor is shown again"


async def test_models_wrap_their_notes(mlxctl: Ctl) -> None:
    problem = "the shard " + "model-00002-of-00002.safetensors " * 4 + "is missing"
    view = c.ModelsView(id=0, models=(known(problem=problem),))
    script: dict[type[c.Request], Part] = {c.ListModels: says(view)}
    async with open_scripted_control(mlxctl.socket, script):
        _, text = await on_terminal(mlxctl, "models")

    lines = without_codes(text).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("safetensors" in line for line in lines) > 1


async def test_events_on_a_wide_and_on_a_narrow_terminal(mlxctl: Ctl) -> None:
    async def watch(asked: Asked) -> None:
        records = [c.LogRecord(id=0, seq=at, line=line) for at, line in enumerate(LINES, 1)]
        await asked.answer(*records, c.WatchEnded(id=0, reason="end", seq=4))

    script: dict[type[c.Request], Part] = {c.GetStatus: says(status(seq=4)), c.WatchEvents: watch}
    async with open_scripted_control(mlxctl.socket, script):
        _, wide = await on_terminal(mlxctl, "events", COLUMNS="140")
        _, narrow = await on_terminal(mlxctl, "events", COLUMNS="80")

    lines = without_codes(wide).splitlines()
    assert lines[0].split() == ["SEQ", "TIME", "EVENT", "MODEL", "CAUSE", "WHAT"]
    assert lines[1].strip() == "2026-09-21"
    assert any("14:13:21  load.started" in line for line in lines)
    assert max(map(len, without_codes(narrow).splitlines())) <= 80
    assert "[mlxctl load]" in without_codes(narrow)


async def test_an_answer_cannot_take_over_the_terminal(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(
            d.Accepted(prompt_tokens=1),
            d.Delta(reasoning="thinking \x1b]0;title\a", tokens=1),
            d.Delta(text="\x1b[2Jgone? ü\tx", tokens=2),
            d.Done(finish_reason="stop", usage=d.Usage(prompt_tokens=1, completion_tokens=2)),
        )

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        code, text = await on_terminal(mlxctl, "run", "tiny", "?")

    assert code == 0
    assert "\x1b[2mthinking \ufffd]0;title\ufffd\x1b[0m" in text
    assert "\ufffd[2Jgone? ü\tx\n" in text


async def test_names_cannot_take_over_the_terminal(mlxctl: Ctl) -> None:
    view = c.ModelsView(id=0, models=(known(name="a\x1b[2Jb", problem="\x1b]0;x\a"),))
    script: dict[type[c.Request], Part] = {c.ListModels: says(view)}
    async with open_scripted_control(mlxctl.socket, script):
        _, text = await on_terminal(mlxctl, "models")

    assert "a\ufffd[2Jb" in text
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
