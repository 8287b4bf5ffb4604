"""``mlxctl run`` against a scripted worker, as a process."""

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.fakes.daemon import FakeModel, Line, Report, open_fake_daemon, says

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n not a whole picture, the worker decides"
USAGE = d.Usage(prompt_tokens=12, completion_tokens=3, cached_tokens=8)


async def test_the_answer_and_nothing_else_is_on_stdout(mlxctl: Ctl) -> None:
    model = FakeModel("tiny", says("A red", " square", "."))
    async with open_fake_daemon(mlxctl.run_dir, model) as daemon:
        ended = await mlxctl("run", "tiny", "What", "is it?")
        await daemon.ledger.wait_for("release lease-1")

    assert (ended.code, ended.out, ended.err) == (0, "A red square.\n", "")
    [request] = daemon.requests
    assert request.messages == (
        d.ChatMessage(role="user", parts=(d.TextPart(text="What is it?"),)),
    )
    assert request.lease == "lease-1"
    assert daemon.acquired[0].needs == ("text",)
    assert daemon.acquired[0].deadline_ms == 120_000


async def test_every_option_reaches_the_worker(mlxctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG + b"a")
    (tmp_path / "b.png").write_bytes(PNG + b"b")
    model = FakeModel("eye", says("ok"), capabilities=("text", "vision"))
    async with open_fake_daemon(mlxctl.run_dir, model) as daemon:
        ended = await mlxctl(
            *("run", "eye", "Compare.", "--image", "a.png", "--image", "b.png"),
            *("--system", "Be brief.", "--max-tokens", "9", "--temperature", "0"),
            *("--top-p", "0.9", "--seed", "7", "--stop", "END", "--stop", "."),
            *("--timeout", "5s"),
            cwd=tmp_path,
        )

    assert ended.code == 0, ended.err
    [request] = daemon.requests
    assert request.messages == (
        d.ChatMessage(role="system", parts=(d.TextPart(text="Be brief."),)),
        d.ChatMessage(
            role="user",
            parts=(
                d.ImagePart(data=PNG + b"a"),
                d.ImagePart(data=PNG + b"b"),
                d.TextPart(text="Compare."),
            ),
        ),
    )
    assert request.sampling == d.Sampling(temperature=0, top_p=0.9, seed=7)
    assert (request.max_tokens, request.stop) == (9, ("END", "."))
    assert daemon.acquired[0].needs == ("vision",)
    assert daemon.acquired[0].deadline_ms == 5000


async def test_an_empty_stop_text_is_refused_as_http_refuses_it(mlxctl: Ctl) -> None:
    ended = await mlxctl("run", "tiny", "hi", "--stop", "END", "--stop", "")

    assert (ended.code, ended.out) == (2, "")
    assert "'--stop': a stop text must not be empty" in ended.err


@pytest.mark.parametrize("arguments", [["-"], []])
async def test_a_prompt_from_stdin(mlxctl: Ctl, arguments: list[str]) -> None:
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("ok"))) as daemon:
        ended = await mlxctl("run", "tiny", *arguments, stdin="zwei\nZeilen ü\n".encode())

    assert ended.code == 0, ended.err
    assert daemon.requests[0].messages is not None
    assert daemon.requests[0].messages[0].parts == (d.TextPart(text="zwei\nZeilen ü\n"),)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize("arguments", [["-"], [], ["-", "--json"]])
async def test_a_prompt_from_stdin_that_is_no_text(
    mlxctl: Ctl, arguments: list[str], errors: str
) -> None:
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("ok"))) as daemon:
        ended = await mlxctl(
            *("run", "tiny", *arguments),
            stdin=b"gr\xfc\xdfe",
            PYTHONIOENCODING=f"utf-8:{errors}",
        )

    assert (ended.code, ended.out, daemon.acquired) == (2, "", [])
    said = r"'gr\udcfc\udcdfe' is not UTF-8 text; "
    if "--json" in arguments:
        assert json.loads(ended.err)["error"]["message"].startswith(said)
    else:
        assert ended.err.startswith(f"mlxctl: {said}")


async def test_json_and_stats(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(
            d.Accepted(prompt_tokens=12),
            d.Delta(reasoning="hm", tokens=1),
            d.Delta(text="4", tokens=2),
            d.Delta(text="2", tokens=3),
            d.Done(finish_reason="stop", usage=USAGE, stop_text="."),
        )

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        ended = await mlxctl("run", "tiny", "6*7?", "--json", "--stats")

    assert ended.out.startswith('{"v":1,')
    assert ended.out.endswith("}\n")
    shape = json.loads(ended.out)
    timing = shape.pop("timing")
    assert shape == {
        "v": 1,
        "model": "tiny",
        "text": "42",
        "reasoning": "hm",
        "tool_calls": [],
        "finish_reason": "stop",
        "stop_text": ".",
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 3,
            "cached_tokens": 8,
            "prefill_ms": 0,
            "decode_ms": 0,
        },
    }
    assert list(timing) == ["load_ms", "ttft_ms", "tokens_per_s", "total_ms"]
    assert 0 <= timing["ttft_ms"] <= timing["total_ms"]
    assert ended.err.startswith(
        "prompt 12 tokens (8 cached) · answer 3 tokens, ended by the stop text '.' · first after "
    )


async def test_thinking_does_not_get_into_a_piped_answer(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(
            d.Accepted(prompt_tokens=1),
            d.Delta(reasoning="let me see", tokens=1),
            d.Delta(text="42\n", tokens=2),
            d.Done(finish_reason="length", usage=USAGE),
        )

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        ended = await mlxctl("run", "tiny", "6*7?")

    assert (ended.out, ended.err) == ("42\n", "")


async def test_bytes_of_the_answer_are_not_altered_in_a_pipe(mlxctl: Ctl) -> None:
    odd = "tab\tbell\a escape\x1b[31m ü 🟥 \u200bassistant x <"
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says(*odd))):
        ended = await mlxctl("run", "tiny", "?")

    assert ended.out == odd + "\n"


async def test_a_failure_in_the_middle_keeps_what_had_come(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="A red", tokens=1))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon:
        ended = await mlxctl("run", "tiny", "?")
        await daemon.ledger.wait_for("release lease-1")

    assert (ended.code, ended.out) == (7, "A red\n")
    assert ended.err.startswith("mlxctl: the model's worker process ended before the answer")
    assert "Traceback" not in ended.err


async def test_a_refusal_by_the_worker(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.INVALID_REQUEST, message="picture 1 is truncated", field="messages")

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Fail(fault=fault))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)):
        ended = await mlxctl("run", "tiny", "?")

    assert (ended.code, ended.out, ended.err) == (2, "", "mlxctl: picture 1 is truncated\n")


async def test_an_empty_answer_is_empty(mlxctl: Ctl) -> None:
    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says())):
        ended = await mlxctl("run", "tiny", "?")

    assert (ended.code, ended.out) == (0, "")


async def test_an_unknown_model(mlxctl: Ctl) -> None:
    async with open_fake_daemon(mlxctl.run_dir):
        ended = await mlxctl("run", "nobody", "?")

    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "mlxctl: no model 'nobody'\n"


async def test_a_picture_that_is_not_there(mlxctl: Ctl) -> None:
    ended = await mlxctl("run", "eye", "?", "--image", "nowhere.png")

    assert ended.code == 2
    assert "'nowhere.png' does not exist" in ended.err


@pytest.mark.parametrize("stdin", [b"", b" \n"])
async def test_an_empty_prompt(mlxctl: Ctl, stdin: bytes) -> None:
    ended = await mlxctl("run", "tiny", stdin=stdin)

    assert ended.code == 2
    assert ended.err.startswith("mlxctl: the prompt is empty")


async def test_ctrl_c_cancels_the_answer(mlxctl: Ctl) -> None:
    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="A red", tokens=1))
        await line.until_closed()

    async with (
        open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon,
        mlxctl.started("run", "tiny", "?") as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.receive() == b"A red"
        process.send_signal(signal.SIGINT)
        await daemon.ledger.wait_for("worker closed lease-1")
        await daemon.ledger.wait_for("disconnect")
        assert process.stderr is not None
        err = b"".join([chunk async for chunk in process.stderr])
        code = await process.wait()

    assert code == 130
    assert err == b"mlxctl: interrupted; what it asked for is withdrawn\n"
    assert "release lease-1" in daemon.ledger.entries


async def test_a_reader_that_goes_away_cancels_the_answer_quietly(mlxctl: Ctl) -> None:
    go_on = anyio.Event()

    async def script(line: Line, _request: d.Generate) -> None:
        await line.send(d.Accepted(prompt_tokens=1), d.Delta(text="A red", tokens=1))
        await go_on.wait()
        await line.send(d.Delta(text=" square", tokens=2))
        await line.until_closed()

    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as ours, os.fdopen(writer, "wb") as theirs:
        async with (
            open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", script)) as daemon,
            mlxctl.started("run", "tiny", "?", stdout=theirs.fileno()) as process,
        ):
            theirs.close()
            await anyio.wait_readable(ours)
            assert ours.read(100) == b"A red"
            ours.close()
            go_on.set()
            await daemon.ledger.wait_for("worker closed lease-1")
            assert process.stderr is not None
            err = b"".join([chunk async for chunk in process.stderr])
            code = await process.wait()

    assert (code, err) == (141, b"")


async def test_a_wait_for_the_model_is_no_part_of_the_output(mlxctl: Ctl) -> None:
    async def load(report: Report) -> None:
        await report(c.Progress(id=0, model="tiny", phase="loading", done_bytes=1, total_bytes=2))

    async with open_fake_daemon(mlxctl.run_dir, FakeModel("tiny", says("ok"), load=load)):
        ended = await mlxctl("run", "tiny", "?")

    assert (ended.code, ended.out, ended.err) == (0, "ok\n", "")
