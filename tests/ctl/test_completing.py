"""Completion as shells ask for it, in a process of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.views import known, resident, status
from tests.fakes.control import Asked, Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

MODELS = c.ModelsView(id=0, models=(known(), known(name="mine"), known(name="mine-4bit")))
SCRIPT: dict[type[c.Request], Part] = {
    c.ListModels: says(MODELS),
    c.GetStatus: says(status(models=(resident(name="mine"),))),
}


async def completed(mlxctl: Ctl, *words: str) -> list[str]:
    ended = await mlxctl(
        _MLXCTL_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(("mlxctl", *words)),
        COMP_CWORD=str(len(words)),
    )
    assert ended.err == ""
    return [line.partition(",")[2] for line in ended.out.splitlines() if line]


async def test_verbs_options_and_models(mlxctl: Ctl) -> None:
    async with open_scripted_control(mlxctl.socket, SCRIPT):
        assert await completed(mlxctl, "unl") == ["unload"]
        assert "--pin" in await completed(mlxctl, "load", "--p")
        assert await completed(mlxctl, "run", "mi") == ["mine", "mine-4bit"]
        assert await completed(mlxctl, "unload", "mi") == ["mine"], "only what is in memory"
        assert await completed(mlxctl, "log", "ver") == ["verify"]


async def test_without_a_daemon_the_cache_is_read(mlxctl: Ctl) -> None:
    (mlxctl.home / "hf" / "hub" / "models--org--tiny").mkdir(parents=True)

    assert await completed(mlxctl, "run", "o") == ["org/tiny"]
    assert await completed(mlxctl, "unload", "o") == []


async def test_a_daemon_that_does_not_answer_is_not_waited_for(mlxctl: Ctl) -> None:
    async def silence(asked: Asked) -> None:
        await asked.cancelled.wait()

    (mlxctl.home / "hf" / "hub" / "models--org--tiny").mkdir(parents=True)
    async with open_scripted_control(mlxctl.socket, {c.ListModels: silence}):
        with anyio.fail_after(9):  # a daemon that should answer is given ten seconds
            assert await completed(mlxctl, "run", "o") == ["org/tiny"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_scripts_for_each_shell(mlxctl: Ctl, shell: str) -> None:
    ended = await mlxctl("completion", shell)

    assert ended.code == 0
    assert f"_MLXCTL_COMPLETE={shell}_complete" in ended.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_understands_its_script(mlxctl: Ctl, tmp_path: Path) -> None:
    program = tmp_path / "mlxctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ctl "$@"\n')
    program.chmod(0o755)
    asks = (
        "source <(mlxctl completion bash); COMP_WORDS=(mlxctl unqu); COMP_CWORD=1; "
        '_mlxctl_completion mlxctl; echo "${COMPREPLY[@]}"'
    )
    environ = mlxctl.environ(PATH=f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run(
        ["bash", "-c", asks], env=environ, capture_output=True, text=True, check=False
    )

    assert done.stdout == "unquarantine\n", done.stderr
