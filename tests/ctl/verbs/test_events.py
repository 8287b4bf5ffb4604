"""``mlxctl events`` against a scripted log, as a process."""

import signal

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import LINES, NOW_MS, resident, status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

WORKERS = status(seq=4, now_ms=NOW_MS + 2_000, models=(resident(name="mlxd/glimpse", worker="w1"),))


def log(*lines: str, then: tuple[str, ...] = ()) -> dict[type[c.Request], Part]:
    """A daemon whose log holds ``lines``; ``then`` come once somebody follows."""

    async def watch(asked: Asked) -> None:
        request = asked.request
        assert isinstance(request, c.WatchEvents)
        after = len(lines) if request.after is None else request.after
        await asked.answer(c.WatchStarted(id=0, seq=after, status=WORKERS))
        for at, line in enumerate(lines, 1):
            if at > after:
                await asked.answer(c.LogRecord(id=0, seq=at, line=line))
        if not request.follow:
            await asked.answer(c.WatchEnded(id=0, reason="end", seq=len(lines)))
            return
        for at, line in enumerate(then, len(lines) + 1):
            await asked.answer(c.LogRecord(id=0, seq=at, line=line))
        await asked.cancelled.wait()

    return {c.GetStatus: says(WORKERS), c.WatchEvents: watch}


async def test_a_pipe_gets_plain_text(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, log(*LINES)):
        ended = await mlxctl("events", "-n", "2")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "   SEQ  TIME                 EVENT                MODEL                     "
        "CAUSE                 WHAT\n"
        "     3  2026-09-21 14:13:21  worker.spawned       mlxd/glimpse              "
        "worker                worker w1 runs as pid 900\n"
        "     4  2026-09-21 14:13:22  load.ready           mlxd/glimpse              "
        "worker                ready after 840 ms of loading: "
        "1.10 GB measured, context 2,048 tokens\n"
    )


async def test_json_is_the_log_byte_for_byte(mlxctl: Ctl) -> None:
    odd = '{"seq":5, "at_ms":1790000003000,"cause":{},"events":[],"x":"ü\\u0000"}'
    async with open_scripted_control(mlxctl.socket, log(*LINES, odd)):
        ended = await mlxctl("events", "--after", "0", "--json")

    assert ended.out == "".join(line + "\n" for line in (*LINES, odd))


@pytest.mark.parametrize(
    ("arguments", "seqs"),
    [
        (["--after", "2"], [3, 4]),
        (["-n", "1"], [4]),
        (["-n", "0"], []),
        (["--type", "load.*", "-n", "1"], [4]),
        (["--type", "load.started", "-n", "1"], [2]),
        (["--model", "mlxd/glimpse"], [2, 3, 4]),
        (["--after", "2", "--type", "load.*"], [4]),
        (["--since", "2026-09-21 14:13:21"], [2, 3, 4]),
        (["--since", "2026-09-21T14:13:22Z"], [4]),
        (["--since", "1h", "-n", "2"], [3, 4]),
        (["--since", "1h", "--type", "load.*"], [2, 4]),
    ],
)
async def test_which_records(mlxctl: Ctl, arguments: list[str], seqs: list[int]) -> None:
    async with open_scripted_control(mlxctl.socket, log(*LINES)):
        ended = await mlxctl("events", "--json", *arguments)

    assert ended.code == 0, ended.err
    assert ended.out == "".join(LINES[seq - 1] + "\n" for seq in seqs)


async def test_only_what_is_shown_is_read(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, log(*LINES)) as daemon:
        await mlxctl("events", "-n", "1")

    assert daemon.only(c.WatchEvents).after == 3


async def test_following_goes_on_without_a_gap_until_ctrl_c(mlxctl: Ctl) -> None:
    script = log(*LINES[:2], then=LINES[2:])
    script[c.GetStatus] = says(status(seq=2))
    async with (
        open_scripted_control(mlxctl.socket, script) as daemon,
        mlxctl.started("events", "-f", "-n", "1", "--json") as process,
    ):
        assert process.stdout is not None
        out = b""
        while out.count(b"\n") < 3:
            out += await process.stdout.receive()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = b"".join([chunk async for chunk in process.stderr])
        code = await process.wait()
        await daemon.until(lambda: daemon.open == 0)

    assert out.decode() == "".join(line + "\n" for line in LINES[1:])
    assert (code, err) == (130, b"")
    followed = daemon.requests[-2]
    assert isinstance(followed, c.WatchEvents)
    assert (followed.after, followed.follow) == (2, True)
    assert daemon.only(c.CancelRequest).target == followed.id


async def test_last_and_after_exclude_each_other(mlxctl: Ctl) -> None:
    ended = await mlxctl("events", "-n", "1", "--after", "1")

    assert ended.code == 2
    assert ended.err == (
        "mlxctl: --last and --after exclude each other\n"
        "  hint: mlxctl events --help shows the usage\n"
    )


async def test_a_moment_that_is_none(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, log(*LINES)):
        ended = await mlxctl("events", "--since", "soon")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("mlxctl: 'soon' is not a moment; write a time ago")
