"""``mlxctl status`` against a scripted daemon, as a process."""

import json

import msgspec
import pytest

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.pool.messages import Cause
from daemon.wire import control as c
from daemon.wire.errors import Code, Fault
from tests.ctl.conftest import Ctl
from tests.ctl.views import resident, status
from tests.daemon.test_history import EVENTS, T0
from tests.fakes.control import WELCOME, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio


def script(view: c.StatusView) -> dict[type[c.Request], Part]:
    return {c.GetStatus: says(view)}


@pytest.mark.parametrize("verb", ["status", "ps"])
async def test_a_pipe_gets_plain_text(mlxctl: Ctl, verb: str) -> None:
    async with open_scripted_control(mlxctl.socket, script(status())) as daemon:
        ended = await mlxctl(verb)

    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert ended.out == (
        "mlxd 0.1.0, up 3h 12m, pid 812, home /home/ada/.mlxd\n"
        "Memory: 1.20 GB of 24.0 GB (5 %), 22.8 GB free\n"
        "\n"
        "NAME          STATE     SIZE  CONTEXT  LEASES  TOK/S  UNTIL\n"
        "mlxd/glimpse  idle   1.20 GB    2,048       0      -  in 5m\n"
    )
    assert [hello.client for hello in daemon.hellos] == ["mlxctl"]


async def test_json_has_the_documented_shape(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, script(status())):
        ended = await mlxctl("status", "--json")

    shape = json.loads(ended.out)
    assert next(iter(shape)) == "v"
    assert (shape["v"], shape["seq"], shape["budget_bytes"]) == (1, 17, 24_000_000_000)
    assert shape["models"] == json.loads(msgspec.json.encode([resident()]))
    assert shape["models"][0]["expires_at_ms"] == 1_790_000_300_000


async def test_no_daemon_is_exit_69_and_says_what_to_do(mlxctl: Ctl) -> None:
    ended = await mlxctl("status")

    assert (ended.code, ended.out) == (69, "")
    assert ended.err == (
        f"mlxctl: the mlxd daemon is not running: nothing listens on {mlxctl.socket}\n"
        "  hint: start it: mlxd, or from login on: mlxctl service install\n"
    )


async def test_failures_are_json_too_if_json_is_wanted(mlxctl: Ctl) -> None:
    ended = await mlxctl("status", "--json")

    assert (ended.code, ended.out) == (69, "")
    shape = json.loads(ended.err)
    assert shape["v"] == 1
    assert shape["error"]["code"] == "no_daemon"


async def test_a_fault_of_the_daemon_keeps_its_code_message_and_hint(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.SHUTTING_DOWN, message="mlxd is stopping", hint="try again in a minute")
    answers: dict[type[c.Request], Part] = {c.GetStatus: says(c.Failed(id=0, fault=fault))}
    async with open_scripted_control(mlxctl.socket, answers):
        ended = await mlxctl("status")

    assert ended.code == 75
    assert ended.err == "mlxctl: mlxd is stopping\n  hint: try again in a minute\n"


async def test_another_protocol_version_is_refused_as_the_daemon_says(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.PROTOCOL_MISMATCH, message="mlxd speaks protocols 7 to 9")
    async with open_scripted_control(mlxctl.socket, greeting=c.Refusal(fault=fault)):
        ended = await mlxctl("status")

    assert (ended.code, ended.err) == (1, "mlxctl: mlxd speaks protocols 7 to 9\n")


@pytest.mark.parametrize("greeting", [b"", b"\x00\x00"], ids=["silence", "half a frame"])
async def test_somebody_else_on_the_socket(mlxctl: Ctl, greeting: bytes) -> None:
    async with open_scripted_control(mlxctl.socket, greeting=greeting):
        ended = await mlxctl("status")

    assert ended.code == 69
    assert "does not answer as mlxd does" in ended.err


async def test_an_answer_of_an_unknown_kind(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, greeting=b"\x00\x00\x00\x01\xc0"):
        ended = await mlxctl("status")

    assert ended.code == 1
    assert ended.err.startswith("mlxctl: the daemon said something that this mlxctl does not know")
    assert "Traceback" not in ended.err


async def test_an_answer_to_something_else(mlxctl: Ctl) -> None:
    answers: dict[type[c.Request], Part] = {c.GetStatus: says(c.Released(id=0, lease="l"))}
    async with open_scripted_control(mlxctl.socket, answers, greeting=WELCOME):
        ended = await mlxctl("status")

    assert ended.code == 1
    assert "Released answers no such request" in ended.err


async def test_the_past_needs_no_daemon(mlxctl: Ctl) -> None:
    log, _ = EventLog.open(mlxctl.home / "events", OsDisk())
    for number, event in enumerate(EVENTS, 1):
        log.append(T0 + number * 10_000, Cause(command="x"), (event,))
    log.commit(sync=True)
    log.close()
    then = await mlxctl("status", "--at", "3")
    moment = await mlxctl("status", "--at", "2026-09-21 14:13:45", "--json")
    never = await mlxctl("status", "--at", "99")

    assert (then.code, then.err) == (0, "")
    assert then.out == (
        "The pool as it was at 2026-09-21 14:13:50, after record 3\n"
        f"mlxd 0.1.0, up 20.0 s, pid 812, home {mlxctl.home}\n"
        "Memory: 4.00 GB of 10.0 GB (40 %), 6.00 GB free\n"
        "\n"
        "NAME  STATE     SIZE  CONTEXT  LEASES  TOK/S  UNTIL\n"
        "a     idle   4.00 GB    4,096       0      -  in 1m\n"
        "\n"
        "The log holds no leases, running requests or waiters: they are not shown.\n"
    )
    assert json.loads(moment.out)["seq"] == 2
    assert (never.code, never.out) == (4, "")
    assert never.err == "mlxctl: the event log holds records 1 to 6, and not 99\n"
