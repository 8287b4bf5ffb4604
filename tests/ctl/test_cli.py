"""Arguments: help, usage errors and their exit codes, without a process."""

import io

import pytest

from ctl.app import App
from ctl.cli import VERBS, run
from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import known, status
from tests.fakes.control import Part, open_scripted_control, says


def called(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = run(App({"MLXD_HOME": "/tmp/nobody-lives-here"}, out, err), list(arguments))
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_has_help_with_examples(
    verb: str, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, _, err = called(verb, flag)
    shown = capsys.readouterr().out

    assert (code, err) == (0, "")
    assert shown.startswith(f"Usage: mlxctl {verb}")
    assert "Example" in shown
    assert "--json" in shown
    assert max(map(len, shown.splitlines())) <= 80, "the usual terminal"


def test_help_lists_every_verb_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("--help")[0] == 0
    shown = capsys.readouterr().out

    for verb in set(VERBS) - {"ps"}:
        assert shown.count(f"\n  {verb} ") == 1
    assert max(map(len, shown.splitlines())) <= 80


def test_no_verb_shows_the_help_and_is_an_error() -> None:
    code, out, err = called()

    assert (code, out) == (2, "")
    assert err.startswith("Usage: mlxctl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stauts"], "there is no verb 'stauts'; did you mean 'mlxctl status'?"),
        (["xyzzy"], "there is no verb 'xyzzy'"),
        (["load"], "missing argument 'MODEL'"),
        (["status", "--colour"], "no such option"),
        (["run", "m", "?", "--temperature", "-1"], "invalid value for '--temperature'"),
        (["run", "m", "?", "--temperature", "9"], "'--temperature': expected `float` <= 2.0"),
        (["run", "m", "?", "--seed", "x"], "'x' is not a valid integer"),
        (["run", "m", "?", "--top-p", "0"], "invalid value for '--top-p'"),
        (["run", "m", "?", "--max-tokens", "0"], "invalid value for '--max-tokens'"),
        (["load", "m", "--ttl", "soon"], "'soon' is not a duration"),
        (["events", "--after", "-1"], "invalid value for '--after'"),
    ],
)
def test_usage_errors_say_what_and_where_to_look(arguments: list[str], message: str) -> None:
    code, out, err = called(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("mlxctl: ")
    assert message in err
    assert err.endswith("--help shows the usage\n")


def test_a_home_that_cannot_be() -> None:
    out, err = io.StringIO(), io.StringIO()
    code = run(App({"MLXD_HOME": "relative"}, out, err), ["status"])

    assert code == 2
    assert err.getvalue().startswith("mlxctl: MLXD_HOME is 'relative'")


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["status", "ps", "version", "models", "pin"])
async def test_cheap_verbs_import_nothing_dear(mlxctl: Ctl, verb: str) -> None:
    """What they load decides how long they take: 120 ms for ``status``, the interpreter in it."""
    script: dict[type[c.Request], Part] = {
        c.GetStatus: says(status()),
        c.ListModels: says(c.ModelsView(id=0, models=(known(),))),
        c.PinModel: says(c.Ok(id=0)),
    }
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl(verb, *(["m"] if verb == "pin" else []), PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert (ended.code, "ctl.quick" in imported) == (0, True)
    assert not imported & {
        *("asyncio", "anyio", "ssl", "rich", "readline", "structlog", "huggingface_hub", "httpx2"),
        *("daemon.wire.client", "ctl.completing", "ctl.starting", "launchd.service"),
    }
