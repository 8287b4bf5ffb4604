"""``mlxctl load`` and ``unload``: what the arguments mean, and what a process does."""

import json
import signal
from pathlib import Path

import click
import pytest

from ctl.verbs.load import Target, target_of
from daemon.wire import control as c
from daemon.wire.errors import Code, Fault, MlxdError
from tests.ctl.conftest import Ctl
from tests.ctl.test_estimate import told
from tests.fakes.control import Asked, Part, open_scripted_control, says

LOADED = c.Loaded(id=0, model="tiny", worker="w1", load_ms=840, measured_bytes=1_100_000_000)
STEPS = (
    c.Progress(id=0, model="tiny", phase="queued"),
    c.Progress(id=0, model="tiny", phase="loading", done_bytes=5, total_bytes=10, eta_ms=900),
)


# --- arguments ------------------------------------------------------------------


def test_a_name_is_a_name(tmp_path: Path) -> None:
    assert target_of("org/tiny", None, None, tmp_path) == Target("org/tiny")


@pytest.mark.parametrize("given", ["./tiny", "../here/tiny", "./tiny/", "ABSOLUTE"])
def test_a_folder_is_registered_under_its_own_name(tmp_path: Path, given: str) -> None:
    here = tmp_path / "here"
    (here / "tiny").mkdir(parents=True)
    given = given.replace("ABSOLUTE", str(here / "tiny"))

    assert target_of(given, None, None, here) == Target("tiny", str(here / "tiny"))


def test_a_dot_is_the_folder_one_is_in(tmp_path: Path) -> None:
    assert target_of(".", None, None, tmp_path) == Target(tmp_path.name, str(tmp_path))


def test_a_folder_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()

    assert target_of("./tiny", None, "mine", tmp_path).name == "mine"
    assert target_of("mine", "tiny", None, tmp_path) == Target("mine", str(tmp_path / "tiny"))


def test_contradicting_arguments(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(click.UsageError, match="a name before --path"):
        target_of("./tiny", "tiny", None, tmp_path)
    with pytest.raises(click.UsageError, match="a name already"):
        target_of("tiny", None, "mine", tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MlxdError, match=f"there is no folder {tmp_path}/tiny") as caught:
        target_of("./tiny", None, None, tmp_path)
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("folder", ["new\nline", " spaced"])
def test_a_folder_whose_name_can_be_no_models(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(MlxdError, match="a model name must not") as caught:
        target_of(f"./{folder}", None, None, tmp_path)
    fault = caught.value.fault
    assert (fault.code, fault.field) == (Code.INVALID_REQUEST, "model")
    assert fault.hint == "give it a name of its own: mlxctl load FOLDER --name NAME"
    assert target_of(f"./{folder}", None, "mine", tmp_path).name == "mine"


# --- as a process ----------------------------------------------------------------


@pytest.mark.anyio
async def test_every_option_reaches_the_daemon(mlxctl: Ctl) -> None:
    (mlxctl.home / "tiny").mkdir()
    async with open_scripted_control(mlxctl.socket, {c.LoadModel: says(*STEPS, LOADED)}) as daemon:
        ended = await mlxctl(
            *("load", "./tiny", "--ttl", "10m", "--pin", "--over-budget", "--timeout", "1.5s")
        )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "tiny is loaded: 1.10 GB in 840 ms\n"
    asked = daemon.only(c.LoadModel)
    assert (asked.model, asked.path) == ("tiny", str(mlxctl.home / "tiny"))
    assert (asked.ttl_s, asked.pin, asked.over_budget, asked.deadline_ms) == (600, True, True, 1500)


@pytest.mark.anyio
async def test_defaults_leave_the_choice_to_the_daemon(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, {c.LoadModel: says(LOADED)}) as daemon:
        ended = await mlxctl("load", "tiny", "--json")

    assert json.loads(ended.out) == {
        "v": 1,
        "model": "tiny",
        "worker": "w1",
        "load_ms": 840,
        "measured_bytes": 1_100_000_000,
    }
    asked = daemon.only(c.LoadModel)
    assert asked == c.LoadModel(id=asked.id, model="tiny")


@pytest.mark.anyio
async def test_progress_as_json_lines(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, {c.LoadModel: says(*STEPS, LOADED)}):
        ended = await mlxctl("load", "tiny", "--progress", "json")

    assert ended.out == "tiny is loaded: 1.10 GB in 840 ms\n"
    assert [json.loads(line) for line in ended.err.splitlines()] == [
        {
            "v": 1,
            "progress": {
                "model": "tiny",
                "phase": phase,
                "done_bytes": done,
                "total_bytes": total,
                "eta_ms": eta,
            },
        }
        for phase, done, total, eta in (("queued", 0, 0, None), ("loading", 5, 10, 900))
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(Code.NOT_FOUND, 4), (Code.OVER_BUDGET, 5), (Code.BUSY, 75), (Code.WORKER_FAILED, 7)],
)
async def test_a_failed_load_has_the_exit_code_of_its_fault(
    mlxctl: Ctl, code: Code, exit_code: int
) -> None:
    failed = c.Failed(id=0, fault=Fault(code=code, message="no", hint="do something"))
    async with open_scripted_control(mlxctl.socket, {c.LoadModel: says(STEPS[0], failed)}):
        ended = await mlxctl("load", "tiny")

    assert (ended.code, ended.out) == (exit_code, "")
    assert ended.err == "mlxctl: no\n  hint: do something\n"


@pytest.mark.anyio
async def test_an_unknown_name_that_is_a_folder_here(mlxctl: Ctl) -> None:
    (mlxctl.home / "tiny").mkdir()
    failed = c.Failed(id=0, fault=Fault(code=Code.NOT_FOUND, message="no model 'tiny'"))
    async with open_scripted_control(mlxctl.socket, {c.LoadModel: says(failed)}):
        ended = await mlxctl("load", "tiny")

    assert ended.code == 4
    assert ended.err.endswith("hint: to load the folder of that name: mlxctl load ./tiny\n")


@pytest.mark.anyio
async def test_ctrl_c_withdraws_the_load(mlxctl: Ctl) -> None:
    async def wait(asked: Asked) -> None:
        await asked.answer(*STEPS)
        await asked.cancelled.wait()

    script: dict[type[c.Request], Part] = {c.LoadModel: wait}
    async with (
        open_scripted_control(mlxctl.socket, script) as daemon,
        mlxctl.started("load", "tiny", "--progress", "json") as process,
    ):
        assert process.stderr is not None
        err = b""
        while err.count(b"\n") < len(STEPS):
            err += await process.stderr.receive()
        process.send_signal(signal.SIGINT)
        await daemon.until(lambda: daemon.open == 0)
        err = b"".join([chunk async for chunk in process.stderr])
        code = await process.wait()

    asked = daemon.only(c.LoadModel)
    assert daemon.only(c.CancelRequest).target == asked.id
    assert code == 130
    assert err == b"mlxctl: interrupted; what it asked for is withdrawn\n"


@pytest.mark.anyio
async def test_a_daemon_that_dies_during_the_load(mlxctl: Ctl) -> None:
    async def die(asked: Asked) -> None:
        await asked.answer(STEPS[0])
        await asked.hang_up()

    script: dict[type[c.Request], Part] = {c.LoadModel: die}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("load", "tiny")

    assert ended.code == 69
    assert "the connection to the mlxd daemon ended" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.anyio
async def test_unload(mlxctl: Ctl) -> None:
    unloaded = c.Unloaded(id=0, model="tiny", freed_bytes=1_000_000_000)
    async with open_scripted_control(mlxctl.socket, {c.UnloadModel: says(unloaded)}) as daemon:
        plain, shape = await mlxctl("unload", "tiny"), await mlxctl("unload", "tiny", "--json")

    assert plain.out == "tiny is unloaded: 1.00 GB freed\n"
    assert json.loads(shape.out) == {"v": 1, "model": "tiny", "freed_bytes": 1_000_000_000}
    assert [type(request) for request in daemon.requests] == [c.UnloadModel] * 2


@pytest.mark.anyio
async def test_unload_of_a_model_in_use(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.CONFLICT, message="tiny is in use by mlx-bridge")
    async with open_scripted_control(
        mlxctl.socket, {c.UnloadModel: says(c.Failed(id=0, fault=fault))}
    ):
        ended = await mlxctl("unload", "tiny")

    assert (ended.code, ended.err) == (6, "mlxctl: tiny is in use by mlx-bridge\n")


@pytest.mark.anyio
async def test_a_load_that_never_expires(mlxctl: Ctl) -> None:
    script: dict[type[c.Request], Part] = {
        c.LoadModel: says(c.Loaded(id=0, model="tiny", worker="w", load_ms=1, measured_bytes=1)),
    }
    async with open_scripted_control(mlxctl.socket, script) as daemon:
        ended = await mlxctl("load", "fast", "--ttl", "never")

    assert ended.code == 0, ended.err
    assert daemon.only(c.LoadModel).ttl_s == "never"


@pytest.mark.anyio
async def test_an_estimate_asks_and_loads_nothing(mlxctl: Ctl) -> None:
    fault = Fault(code=Code.OVER_BUDGET, message="big needs 90 GB")

    async def answer(asked: Asked) -> None:
        assert isinstance(asked.request, c.EstimateLoad)
        refused = told(verdict="refused", fault=fault)
        await asked.answer(told() if asked.request.over_budget else refused)

    async with open_scripted_control(mlxctl.socket, {c.EstimateLoad: answer}) as daemon:
        refused = await mlxctl("load", "big", "--estimate", "--json")
        folder = await mlxctl("load", "/", "--name", "root", "--estimate", "--over-budget")

    assert (refused.code, refused.err) == (5, "")
    shape = json.loads(refused.out)
    assert (shape["v"], shape["verdict"], shape["fault"]["code"]) == (1, "refused", "over_budget")
    assert (folder.code, folder.err) == (0, "")
    assert "It fits: it would be loaded at once.\n" in folder.out
    asked = [(r.model, r.path) for r in daemon.requests if isinstance(r, c.EstimateLoad)]
    assert asked == [("big", None), ("root", "/")]
    assert len(daemon.requests) == 2
