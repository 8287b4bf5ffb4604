"""``mlxctl run MODEL`` as a chat, on a terminal, with a scripted worker."""

import stat
from pathlib import Path

import anyio
import pytest

from daemon.wire import data as d
from tests.ctl.conftest import Ctl
from tests.ctl.terminal import open_terminal
from tests.fakes.daemon import FakeModel, Line, open_fake_daemon, says

pytestmark = pytest.mark.anyio

DONE = d.Done(finish_reason="stop", usage=d.Usage(prompt_tokens=1, completion_tokens=1))


def told(request: d.Generate) -> list[tuple[str, str]]:
    assert request.messages is not None
    return [
        (message.role, "".join(p.text if isinstance(p, d.TextPart) else "#" for p in message.parts))
        for message in request.messages
    ]


async def test_several_turns_with_settings_and_a_picture(mlxctl: Ctl, tmp_path: Path) -> None:
    picture, saved = tmp_path / "a b.png", tmp_path / "chat.md"
    picture.write_bytes(b"\x89PNG")
    model = FakeModel("eye", says("So be", " it."), capabilities=("text", "vision"))
    async with (
        open_fake_daemon(mlxctl.run_dir, model) as daemon,
        open_terminal(mlxctl, "run", "eye", "--system", "Be brief.") as terminal,
    ):
        await terminal.until("eye reads text and pictures, 2,048 tokens. /help")
        await terminal.until(">>> ")
        terminal.type("hello\n")
        await terminal.until("So be it.\r\n>>> ")
        terminal.type(f"/image '{picture}'\n")
        await terminal.until("a b.png goes with your next message")
        terminal.type("/set temperature 0\n")
        await terminal.until("temperature: 0")
        terminal.type('"""two\nlines"""\n')
        await terminal.until("So be it.\r\n>>> ")
        terminal.type(f"/save {saved}\n")
        await terminal.until("saved to")
        terminal.type("/stats\n")
        await terminal.until("prompt 5 tokens · answer 2 tokens, ended by the model")
        terminal.type("/clear\n")
        await terminal.until("forgotten")
        terminal.type("/bye\n")
        assert await terminal.end() == 0

    first, second = daemon.requests
    assert told(first) == [("system", "Be brief."), ("user", "hello")]
    assert told(second) == [
        ("system", "Be brief."),
        ("user", "hello"),
        ("assistant", "So be it."),
        ("user", "#two\nlines"),
    ]
    assert second.sampling == d.Sampling(temperature=0)
    assert saved.read_text().count("**assistant**") == 2


async def test_ctrl_c_stops_the_answer_and_only_twice_leaves(mlxctl: Ctl) -> None:
    async def script(line: Line, request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="A red", tokens=1))
        if len(request.messages or ()) == 1:
            await line.until_closed()
        else:
            await line.send(DONE)

    async with (
        open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon,
        open_terminal(mlxctl, "run", "tiny") as terminal,
    ):
        await terminal.until(">>> ")
        terminal.type("what?\n")
        await terminal.until("A red")
        await terminal.interrupt()
        await terminal.until("stopped\r\n>>> ")
        await daemon.ledger.wait_for("release lease-2")
        terminal.type("go on\n")
        await terminal.until("A red\r\n>>> ")
        await terminal.interrupt()
        await terminal.until("Ctrl-C again, Ctrl-D or /bye leaves\r\n>>> ")
        await terminal.interrupt()
        assert await terminal.end() == 0

    assert told(daemon.requests[1]) == [
        ("user", "what?"),
        ("assistant", "A red"),
        ("user", "go on"),
    ]


async def test_a_failed_turn_is_not_remembered_and_the_chat_goes_on(mlxctl: Ctl) -> None:
    async def script(line: Line, request: d.Generate) -> None:
        if told(request)[-1][1] == "fail":
            return
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="fine", tokens=1), DONE)

    async with (
        open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon,
        open_terminal(mlxctl, "run", "tiny") as terminal,
    ):
        await terminal.until(">>> ")
        terminal.type("fail\n")
        await terminal.until("mlxctl: the model's worker process ended")
        terminal.type("/image nowhere.png\n")
        await terminal.until("mlxctl: cannot read nowhere.png: No such file or directory")
        terminal.type("/nonsense\n")
        await terminal.until("there is no /nonsense; /help lists what there is")
        terminal.type("again\n")
        await terminal.until("fine\r\n>>> ")
        terminal.type("\x04")
        assert await terminal.end() == 0

    assert told(daemon.requests[-1]) == [("user", "again")]


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
async def test_a_line_that_is_no_text_is_not_sent_and_the_chat_goes_on(
    mlxctl: Ctl, errors: str
) -> None:
    mlxctl.always["PYTHONIOENCODING"] = f"utf-8:{errors}"
    async with (
        open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("So be it."))) as daemon,
        open_terminal(mlxctl, "run", "tiny") as terminal,
    ):
        for keys, said in (
            (b"gr\xfc\xdfe\n", "is not UTF-8 text; "),
            (b"/system gr\xfc\n", "is not UTF-8 text; "),
            (b"/set top_p \xff\n", "top_p is a number, or default; not '?'"),
            (b"/\xff\n", "there is no /?;"),
        ):
            await terminal.until(">>> ")
            terminal.type(keys)
            await terminal.until(said)
        await terminal.until(">>> ")
        terminal.type("again\n")
        await terminal.until("So be it.\r\n>>> ")
        terminal.type("/bye\n")
        assert await terminal.end() == 0

    [request] = daemon.requests
    assert told(request) == [("user", "again")]


async def test_history_lasts_and_is_nobody_else_s(mlxctl: Ctl) -> None:
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("ok"))) as daemon:
        for keys in ("remember me\n", "\x1b[A\x1b[A\n"):
            async with open_terminal(mlxctl, "run", "tiny") as terminal:
                await terminal.until(">>> ")
                terminal.type(keys)
                await terminal.until("ok\r\n>>> ")
                terminal.type("/bye\n")
                assert await terminal.end() == 0

    assert [told(request) for request in daemon.requests] == [[("user", "remember me")]] * 2
    kept = await anyio.Path(mlxctl.home / "chat_history").stat()
    assert stat.S_IMODE(kept.st_mode) == 0o600


async def test_a_model_that_cannot_be_had_ends_it_at_once(mlxctl: Ctl) -> None:
    async with (
        open_fake_daemon(mlxctl.run_dir),
        open_terminal(mlxctl, "run", "nobody") as terminal,
    ):
        assert await terminal.end() == 4
        assert "no model 'nobody'" in terminal.text


async def test_tab_completes_commands_and_files(mlxctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "photograph.png").write_bytes(b"\x89PNG")
    async with (
        open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("ok"))),
        open_terminal(mlxctl, "run", "tiny") as terminal,
    ):
        await terminal.until(">>> ")
        terminal.type("/im\t")
        await terminal.until("/image ")
        terminal.type(f"{tmp_path}/photo\t")
        await terminal.until("photograph.png")
        terminal.type("\n")
        await terminal.until("photograph.png goes with your next message")
        terminal.type("/bye\n")
        assert await terminal.end() == 0
