"""``mlxctl top`` on a terminal: what it shows, what its keys do, how it leaves."""

import json
import signal
from contextlib import AsyncExitStack

import anyio
import pytest

from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.ctl.terminal import LEFT, SHOWN, open_terminal, without_codes
from tests.ctl.views import LINES, known, resident, status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

TWO = (resident(), resident(name="tiny", worker="w2", state="busy", running=1, tokens_per_s=12.0))


async def watch(asked: Asked) -> None:
    """All that has happened, and then nothing more."""
    request = asked.request
    assert isinstance(request, c.WatchEvents)
    records = [c.LogRecord(id=0, seq=at, line=line) for at, line in enumerate(LINES, 1)]
    await asked.answer(c.WatchStarted(id=0, seq=4, status=status(models=TWO)), *records)
    if not request.follow:
        await asked.answer(c.WatchEnded(id=0, reason="end", seq=4))
    else:
        await asked.cancelled.wait()


def script() -> dict[type[c.Request], Part]:
    return {
        c.GetStatus: says(status(models=TWO)),
        c.WatchEvents: watch,
        c.ListModels: says(c.ModelsView(id=0, models=(known(),))),
        c.UnloadModel: says(c.Unloaded(id=0, model="tiny", freed_bytes=5_000_000)),
        c.PinModel: says(c.Ok(id=0)),
    }


async def test_it_shows_the_pool_and_leaves_the_terminal_as_it_was(mlxctl: Ctl) -> None:
    async with (
        open_scripted_control(mlxctl.socket, script()),
        open_terminal(mlxctl, "top") as terminal,
    ):
        before = terminal.settings()
        await terminal.until("mlxd/glimpse: ready after 840 ms")
        shown = without_codes(terminal.text)
        assert "1.20 GB of 24.0 GB (5 %)" in shown
        assert "busy: 1 running" in shown
        assert terminal.settings() != before, "keys come at once"
        terminal.type("q")
        assert await terminal.end() == 0
        assert LEFT in terminal.text
        assert SHOWN in terminal.text
        assert terminal.settings() == before


@pytest.mark.parametrize(
    ("how", "code"), [(None, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)], ids=str
)
async def test_however_it_ends_the_terminal_is_given_back(
    mlxctl: Ctl, how: signal.Signals | None, code: int
) -> None:
    async with (
        open_scripted_control(mlxctl.socket, script()),
        open_terminal(mlxctl, "top") as terminal,
    ):
        before = terminal.settings()
        await terminal.until("LATELY")
        if how is not None:
            terminal.process.send_signal(how)
        else:
            await terminal.interrupt()
        assert await terminal.end() == code
        assert LEFT in terminal.text
        assert terminal.settings() == before
        assert "Traceback" not in terminal.text


async def test_keys_act_on_the_chosen_model(mlxctl: Ctl) -> None:
    async with (
        open_scripted_control(mlxctl.socket, script()) as control,
        open_terminal(mlxctl, "top") as terminal,
    ):
        await terminal.until("LATELY")
        terminal.type("\x1b[B")
        terminal.type("u")
        await terminal.until("tiny is unloaded: 5.00 MB freed")
        assert control.only(c.UnloadModel).model == "tiny"
        terminal.type("k")
        terminal.type("p")
        await terminal.until("mlxd/glimpse is pinned")
        assert control.only(c.PinModel).model == "mlxd/glimpse"
        terminal.type("w")
        await terminal.until("mlxd/glimpse is in memory, and nobody uses it now.")
        await terminal.until("any key goes back")
        terminal.type("w")
        await terminal.until("LATELY")
        terminal.type("q")
        assert await terminal.end() == 0


async def test_a_refusal_is_shown_and_top_goes_on(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.CONFLICT, message="mlxd/glimpse is in use by 1 lease")
    refusing = script() | {c.UnloadModel: says(c.Failed(id=0, fault=fault))}
    async with (
        open_scripted_control(mlxctl.socket, refusing),
        open_terminal(mlxctl, "top") as terminal,
    ):
        await terminal.until("LATELY")
        terminal.type("u")
        await terminal.until("mlxd/glimpse is in use by 1 lease")
        terminal.type("q")
        assert await terminal.end() == 0


async def test_a_daemon_that_goes_is_waited_for(mlxctl: Ctl) -> None:
    async with AsyncExitStack() as stack:
        async with open_scripted_control(mlxctl.socket, script()):
            terminal = await stack.enter_async_context(open_terminal(mlxctl, "top"))
            await terminal.until("LATELY")
        await terminal.until("mlxd is not there; waiting for it")
        await anyio.Path(mlxctl.socket).unlink(missing_ok=True)
        async with open_scripted_control(mlxctl.socket, script()):
            await terminal.until("1.20 GB of 24.0 GB")
            terminal.type("q")
            assert await terminal.end() == 0


async def test_without_a_daemon_nothing_is_drawn(mlxctl: Ctl) -> None:
    async with open_terminal(mlxctl, "top") as terminal:
        assert await terminal.end() == 69
        assert "the mlxd daemon is not running" in terminal.text
        assert "\x1b[?1049h" not in terminal.text


async def test_a_pipe_gets_json_or_a_word_about_it(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, script()):
        plain = await mlxctl("top")
        async with mlxctl.started("top", "--json") as process:
            assert process.stdout is not None
            first = b""
            while not first.endswith(b"\n"):
                first += await process.stdout.receive()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130

    assert plain.code == 2
    assert "top needs a terminal; in a pipe: mlxctl top --json" in plain.err
    assert [model["name"] for model in json.loads(first)["models"]] == ["mlxd/glimpse", "tiny"]
