"""``mlxctl logs``: whose, and what comes after."""

import json
import signal

import anyio
import msgspec
import pytest

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.pool.messages import Cause
from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import resident, status
from tests.daemon.test_history import LOAD, T0
from tests.fakes.control import open_scripted_control, says

pytestmark = pytest.mark.anyio

LINE = '{"event": "daemon.ready", "pid": 7, "level": "info", "timestamp": "2026-09-21T14:13:20Z"}\n'


def write(mlxctl: Ctl, name: str, text: str = LINE) -> None:
    (mlxctl.home / "logs").mkdir(exist_ok=True)
    (mlxctl.home / "logs" / name).write_text(text)


async def test_the_daemon_s_by_itself(mlxctl: Ctl) -> None:
    write(mlxctl, "daemon.log", "odd\n" + LINE * 60)
    ended = await mlxctl("logs", "-n", "2")
    as_json = await mlxctl("logs", "-n", "61", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "2026-09-21 14:13:20  daemon.ready  pid=7\n" * 2
    first, second = map(json.loads, as_json.out.splitlines()[:2])
    assert (first, second) == ({"v": 1, "line": "odd"}, json.loads(LINE))


async def test_what_a_service_says_before_it_logs(mlxctl: Ctl) -> None:
    write(mlxctl, "bridge.boot.log", "mlx-bridge: the port is taken\n")

    assert (await mlxctl("logs", "bridge")).out == "mlx-bridge: the port is taken\n"


async def test_a_worker_s_by_name_and_by_model(mlxctl: Ctl) -> None:
    write(mlxctl, "worker-w1.log", "one\n")
    write(mlxctl, "worker-w2.log", "two\n")
    view = status(models=(resident(name="tiny", worker="w2"),))
    async with open_scripted_control(mlxctl.socket, {c.GetStatus: says(view)}):
        by_model = await mlxctl("logs", "worker", "tiny")
    by_name = await mlxctl("logs", "worker", "w1")
    unknown = await mlxctl("logs", "worker", "../../etc")

    assert (by_model.out, by_name.out) == ("two\n", "one\n")
    assert unknown.code == 4
    assert "is of a worker or model '../../etc': there are w" in unknown.err


async def test_the_last_worker_of_a_model_that_is_not_resident(mlxctl: Ctl) -> None:
    """The log of the load that failed, by the event log's files, with a daemon or without."""
    write_events(mlxctl, ["w7", "w8"], ["w9"])
    write(mlxctl, "worker-w8.log", "the first load\n")
    write(mlxctl, "worker-w9.log", "why it failed\n")
    async with open_scripted_control(mlxctl.socket, {c.GetStatus: says(status())}):
        with_daemon = await mlxctl("logs", "worker", "a")
    without = await mlxctl("logs", "worker", "a")
    other = await mlxctl("logs", "worker", "b")
    (mlxctl.home / "logs" / "worker-w9.log").unlink()
    gone = await mlxctl("logs", "worker", "a")

    assert [ended.out for ended in (with_daemon, without)] == ["why it failed\n"] * 2
    assert other.code == gone.code == 4
    assert "is of a worker or model 'b': there are w" in other.err
    assert "the log of w9, the last worker of 'a', is not in" in gone.err


async def test_the_last_worker_is_found_in_a_damaged_log(mlxctl: Ctl) -> None:
    write_events(mlxctl, ["w7"], ["w8", "w9"])
    write(mlxctl, "worker-w8.log", "what can be read\n")
    segment = max((mlxctl.home / "events").glob("*.jsonl"))
    head, _, _ = segment.read_text().rpartition('"worker":"w9"')
    segment.write_text(head)
    (mlxctl.home / "events" / "notes.jsonl").write_text("somebody else's\n")

    assert (await mlxctl("logs", "worker", "a")).out == "what can be read\n"


def write_events(mlxctl: Ctl, *segments: list[str]) -> None:
    """A log of loads of one model "a", by these workers."""
    for workers in segments:
        log, _ = EventLog.open(mlxctl.home / "events", OsDisk(), segment_bytes_max=1)
        for worker in workers:
            log.append(T0, Cause(command="x"), (msgspec.structs.replace(LOAD, worker=worker),))
        log.commit(sync=True)
        log.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("logs",), 4, "mlxd writes it as a service, and else to its own terminal"),
        (("logs", "bridge"), 4, "mlx-bridge writes it as a service"),
        (("logs", "worker"), 2, "name the worker or its model"),
        (("logs", "daemon", "w1"), 2, "only workers have names"),
    ],
)
async def test_what_is_not_there(
    mlxctl: Ctl, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = await mlxctl(*arguments)

    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


async def test_following_shows_what_comes_until_ctrl_c(mlxctl: Ctl) -> None:
    write(mlxctl, "daemon.log")
    async with mlxctl.started("logs", "-f") as process:
        assert process.stdout is not None
        assert (await process.stdout.receive()).startswith(b"2026-09-21 14:13:20  daemon.ready")
        async with await anyio.open_file(mlxctl.home / "logs" / "daemon.log", "a") as log:
            await log.write("and more\n")
        with anyio.fail_after(20):
            assert await process.stdout.receive() == b"and more\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert process.stderr is not None
        assert [chunk async for chunk in process.stderr] == []
