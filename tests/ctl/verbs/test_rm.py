"""``mlxctl rm``: what goes, what is kept, and what it refuses."""

import json
from pathlib import Path

import pytest

from daemon.wire import control as c
from tests.ctl.conftest import Ctl
from tests.ctl.terminal import open_terminal
from tests.ctl.views import known, resident, status
from tests.fakes.control import Part, open_scripted_control, says

pytestmark = pytest.mark.anyio

NAME = "org/tiny"


def cached(mlxctl: Ctl, **snapshots: bytes) -> Path:
    """A model in the cache with these commits and weights; the first one is main."""
    folder = mlxctl.home / "hf" / "hub" / "models--org--tiny"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(next(iter(snapshots)))
    for commit, content in snapshots.items():
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "blobs" / f"blob-{commit}").write_bytes(content)
        link = folder / "snapshots" / commit / "model.safetensors"
        link.symlink_to(f"../../blobs/blob-{commit}")
    return folder


async def test_a_model_goes_with_what_a_pull_had_left(mlxctl: Ctl) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x" * 3_000_000})
    (folder / "blobs" / "other.mlxctl.incomplete").write_bytes(b"x" * 1_000_000)
    ended = await mlxctl("rm", NAME, "--yes")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "org/tiny is removed: 4.00 MB freed\n"
    assert not folder.exists()


async def test_one_revision_goes_and_the_other_stays(mlxctl: Ctl) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x" * 3_000_000, "b" * 40: b"y" * 2_000_000})
    ended = await mlxctl("rm", NAME, "--revision", "bbb", "--yes", "--json")

    assert json.loads(ended.out) == {"v": 1, "model": NAME, "freed_bytes": 2_000_000}
    assert [one.name for one in (folder / "snapshots").iterdir()] == ["a" * 40]
    assert [one.name for one in (folder / "blobs").iterdir()] == [f"blob-{'a' * 40}"]


async def test_an_unknown_revision(mlxctl: Ctl) -> None:
    cached(mlxctl, **{"a" * 40: b"x"})
    ended = await mlxctl("rm", NAME, "--revision", "v9", "--yes")

    assert ended.code == 4
    assert "'v9' is not one revision of org/tiny on this disk; there are aaaaaaaaaaaa" in ended.err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130), ("^C", 130)])
async def test_somebody_is_asked(mlxctl: Ctl, answer: str, code: int) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x" * 3_000_000})
    async with open_terminal(mlxctl, "rm", NAME) as terminal:
        await terminal.until("Remove org/tiny (3.00 MB) from ")
        await terminal.until("[y/N]: ")
        if answer == "^C":
            await terminal.interrupt()
        else:
            terminal.type(f"{answer}\n")
        assert await terminal.end() == code

    assert folder.exists() is (code != 0)


async def test_nobody_to_ask(mlxctl: Ctl) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x"})
    ended = await mlxctl("rm", NAME)

    assert ended.code == 2
    assert "add --yes" in ended.err
    assert folder.exists()


async def test_a_model_in_memory_stays(mlxctl: Ctl) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x"})
    view = status(models=(resident(name=NAME, path=str(folder / "snapshots" / ("a" * 40))),))
    async with open_scripted_control(mlxctl.socket, {c.GetStatus: says(view)}):
        ended = await mlxctl("rm", NAME, "--yes")

    assert ended.code == 6
    assert ended.err == (
        "mlxctl: org/tiny is in memory (idle)\n  hint: unload it first: mlxctl unload org/tiny\n"
    )
    assert folder.exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (known(), "mlxd/glimpse belongs to mlxd itself and stays"),
        (known(source="alias", targets=("a", "b")), "is an alias: it stands for a, then b"),
        (known(source="loaded", path="/my/model"), "lies in a folder of yours, /my/model: only"),
    ],
)
async def test_what_is_not_its_own_is_not_removed(
    mlxctl: Ctl, model: c.KnownModel, said: str
) -> None:
    script: dict[type[c.Request], Part] = {c.ListModels: says(c.ModelsView(id=0, models=(model,)))}
    async with open_scripted_control(mlxctl.socket, script):
        ended = await mlxctl("rm", "mlxd/glimpse", "--yes")

    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize("name", ["org/nobody", "../../etc", ".", "org--tiny"])
async def test_an_unknown_model(mlxctl: Ctl, name: str) -> None:
    folder = cached(mlxctl, **{"a" * 40: b"x"})
    ended = await mlxctl("rm", name, "--yes")

    assert ended.code == 4
    assert ended.err.startswith(f"mlxctl: no model {name} is in the Hugging Face cache\n")
    assert folder.exists()
