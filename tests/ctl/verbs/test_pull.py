"""``mlxctl pull``: the real huggingface_hub, over real HTTP, from a stand-in for the hub."""

import fcntl
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from tests.ctl.conftest import Ctl
from tests.ctl.terminal import SHOWN, open_terminal
from tests.fakes.hub import FakeHub, Repo, blob, open_fake_hub

pytestmark = pytest.mark.anyio

WEIGHTS = bytes(range(256)) * 20_000
"""5.12 MB: enough to be fetched piece by piece."""
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "README.md": b"# tiny",
    "pytorch_model.bin": b"pickle" * 100,
    "modeling.py": b"print('no')",
}
NAME = "org/tiny"
CDN = f"GET /cdn/{blob(WEIGHTS)}"


@pytest.fixture
def hub(mlxctl: Ctl) -> Iterator[FakeHub]:
    with open_fake_hub() as hub:
        mlxctl.always["HF_ENDPOINT"] = hub.endpoint
        hub.repos[NAME] = Repo(dict(FILES))
        yield hub


def cache(mlxctl: Ctl) -> Path:
    return mlxctl.home / "hf" / "hub" / "models--org--tiny"


async def test_what_a_model_needs_is_in_the_cache_and_nothing_that_could_run(
    mlxctl: Ctl, hub: FakeHub
) -> None:
    ended = await mlxctl("pull", NAME)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "org/tiny is on disk: 5.12 MB in 4 files, 5.12 MB fetched\n"
        "To talk to it: mlxctl run org/tiny\n"
    )
    snapshot = cache(mlxctl) / "snapshots" / ("a" * 40)
    assert {file.name: file.read_bytes() for file in snapshot.iterdir()} == {
        name: content for name, content in FILES.items() if not name.endswith((".bin", ".py"))
    }
    assert not [line for line in hub.asked if ".bin" in line or ".py" in line]
    assert not list((cache(mlxctl) / "blobs").glob("*incomplete"))


async def test_pulling_again_fetches_nothing(mlxctl: Ctl, hub: FakeHub) -> None:
    await mlxctl("pull", NAME)
    hub.asked.clear()
    ended = await mlxctl("pull", NAME, "--json")

    assert json.loads(ended.out) == {
        "v": 1,
        "model": NAME,
        "revision": "a" * 40,
        "path": str(cache(mlxctl) / "snapshots" / ("a" * 40)),
        "total_bytes": len(WEIGHTS) + 23 + 2 + 6,
        "fetched_bytes": 0,
    }
    assert not [line for line in hub.asked if line.startswith("GET /cdn")]


async def test_a_broken_connection_goes_on_where_it_broke(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.cut_after = [1_000_000]
    ended = await mlxctl("pull", NAME)

    assert ended.code == 0, ended.err
    first, second = [line for line in hub.asked if line.startswith(CDN)]
    assert first == f"{CDN} bytes=0-"
    begin = int(second.partition("bytes=")[2].rstrip("-"))
    assert 0 < begin <= 1_000_000
    assert (cache(mlxctl) / "blobs" / blob(WEIGHTS)).read_bytes() == WEIGHTS


async def test_ctrl_c_keeps_what_has_come_and_the_next_pull_goes_on(
    mlxctl: Ctl, hub: FakeHub
) -> None:
    hub.hold_after = 2_000_000
    part = cache(mlxctl) / "blobs" / f"{blob(WEIGHTS)}.mlxctl.incomplete"
    process = await anyio.open_process(
        mlxctl.argv("pull", NAME, "--progress", "json"),
        cwd=mlxctl.home,
        env=mlxctl.environ(),
    )
    async with process:
        assert process.stderr is not None
        lines = TextReceiveStream(process.stderr)
        said = ""
        with anyio.fail_after(60):
            while '"done_bytes":18' not in said:  # 37 % of it, shortly before it is held
                said += await lines.receive()
        process.send_signal(signal.SIGINT)
        said = "".join([said, *[text async for text in lines]])
        assert await process.wait() == 130
    assert said.endswith(
        "mlxctl: interrupted; what has come is kept\n  hint: go on with: mlxctl pull org/tiny\n"
    )
    had = part.stat().st_size
    hub.hold_after = None
    hub.asked.clear()
    ended = await mlxctl("pull", NAME, "--json")

    assert json.loads(ended.out)["fetched_bytes"] == len(WEIGHTS) - had + 23 + 2 + 6
    assert [line for line in hub.asked if line.startswith(CDN)] == [f"{CDN} bytes={had}-"]
    assert (cache(mlxctl) / "blobs" / blob(WEIGHTS)).read_bytes() == WEIGHTS


async def test_a_server_without_ranges_begins_again_and_the_file_is_right(
    mlxctl: Ctl, hub: FakeHub
) -> None:
    hub.no_ranges = True
    hub.cut_after = [1_000_000]
    ended = await mlxctl("pull", NAME)

    assert ended.code == 0, ended.err
    assert (cache(mlxctl) / "blobs" / blob(WEIGHTS)).read_bytes() == WEIGHTS


async def test_damage_is_noticed_and_not_kept(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.damage = True
    ended = await mlxctl("pull", NAME)

    assert (ended.code, ended.out) == (75, "")
    assert ended.err.startswith("mlxctl: model.safetensors arrived damaged: its SHA-256 is ")
    assert not list((cache(mlxctl) / "blobs").glob(f"{blob(WEIGHTS)}*"))


async def test_a_revision_of_its_own(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.repos[NAME].revisions["old"] = "b" * 40
    hub.repos[NAME].commits["b" * 40] = FILES | {"config.json": b'{"model_type": "old"}'}
    await mlxctl("pull", NAME)
    ended = await mlxctl("pull", NAME, "--revision", "old")

    place = cache(mlxctl) / "snapshots" / ("b" * 40)
    assert ended.code == 0, ended.err
    assert (place / "config.json").read_bytes() == b'{"model_type": "old"}'
    assert f"Its name means the branch main. This one: mlxctl load {place}\n" in ended.out


async def test_the_token_goes_to_the_hub_and_nowhere_else(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.repos[NAME].token = "hf_secret"
    ended = await mlxctl("pull", NAME, HF_TOKEN="hf_secret")

    assert ended.code == 0, ended.err
    assert "a token that was not for us" not in hub.asked


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["org/nobody"], 4, "mlxctl: the hub knows no model org/nobody, or it is private\n"),
        (["org/tiny", "--revision", "v9"], 4, "mlxctl: org/tiny has no revision 'v9'\n"),
        (["no such name"], 2, "mlxctl: 'no such name' is no repository's name"),
        (["org/gated"], 3, "mlxctl: org/gated is gated"),
        (["org/gguf"], 5, "mlxctl: org/gguf holds GGUF files, which MLX does not read\n"),
        (["org/pickle"], 5, "mlxctl: org/pickle holds no safetensors weights\n"),
        (["org/weights"], 5, "mlxctl: org/weights has no config.json"),
    ],
)
async def test_what_cannot_be_pulled_says_why(
    mlxctl: Ctl, hub: FakeHub, arguments: list[str], code: int, said: str
) -> None:
    hub.repos["org/gated"] = Repo(dict(FILES))
    hub.repos["org/gated"].token = "somebody else's"
    hub.repos["org/gguf"] = Repo({"config.json": b"{}", "m.gguf": b"GGUF"})
    hub.repos["org/pickle"] = Repo({"config.json": b"{}", "pytorch_model.bin": b"p"})
    hub.repos["org/weights"] = Repo({"model.safetensors": b"w"})
    ended = await mlxctl("pull", *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(said)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:9", "mlxctl: the hub cannot be reached: "),
        ("HF_HUB_OFFLINE", "1", "mlxctl: the hub cannot be reached: HF_HUB_OFFLINE is set\n"),
    ],
)
async def test_without_a_network(mlxctl: Ctl, name: str, value: str, said: str) -> None:
    mlxctl.always[name] = value
    ended = await mlxctl("pull", NAME)

    assert (ended.code, ended.out) == (75, "")
    assert ended.err.startswith(said)


async def test_a_hub_that_fails_says_so(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.repos[NAME].refuse = (500, "InternalError")
    ended = await mlxctl("pull", NAME)

    assert (ended.code, ended.out) == (75, "")
    assert ended.err.startswith("mlxctl: the hub cannot be reached: it answered with status 500\n")


async def test_progress_for_programs(mlxctl: Ctl, hub: FakeHub) -> None:
    ended = await mlxctl("pull", NAME, "--progress", "json")

    steps = [json.loads(line)["progress"] for line in ended.err.splitlines()]
    assert len(steps) <= 101
    assert [step["done_bytes"] for step in steps] == sorted(step["done_bytes"] for step in steps)
    assert steps[-1] == {
        "model": NAME,
        "phase": "pulling",
        "done_bytes": len(WEIGHTS),
        "total_bytes": len(WEIGHTS),
    }


async def test_a_disk_that_refuses_is_told_and_what_has_come_is_kept(
    mlxctl: Ctl, hub: FakeHub
) -> None:
    bounded = 'ulimit -f 4000 && exec "$@"'  # files of at most 4000 blocks of 512 bytes
    done = await anyio.run_process(
        ["sh", "-c", bounded, "sh", *mlxctl.argv("pull", NAME)], env=mlxctl.environ(), check=False
    )

    part = cache(mlxctl) / "blobs" / f"{blob(WEIGHTS)}.mlxctl.incomplete"
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"mlxctl: cannot write to {cache(mlxctl)}: File too large\n"
        "  hint: what has come is kept; mend that, then: mlxctl pull org/tiny\n"
    )
    assert part.stat().st_size > 1_000_000
    ended = await mlxctl("pull", NAME)
    assert ended.code == 0, ended.err


async def test_a_terminal_sees_bars_and_gets_its_cursor_back(mlxctl: Ctl, hub: FakeHub) -> None:
    hub.hold_after = 2_000_000
    async with open_terminal(mlxctl, "pull", NAME) as terminal:
        await terminal.until("model.safetensors ━")
        await terminal.until("1.8/5.1 MB")
        await terminal.interrupt()
        assert await terminal.end() == 130
        assert SHOWN in terminal.text
        assert "interrupted; what has come is kept" in terminal.text


async def test_many_files_share_one_bar(mlxctl: Ctl, hub: FakeHub) -> None:
    shards = {f"model-{n}.safetensors": bytes([n]) * 4_000_000 for n in range(9)}
    hub.repos["org/many"] = Repo({"config.json": b"{}", **shards})
    hub.hold_after = 1_000_000
    async with open_terminal(mlxctl, "pull", "org/many") as terminal:
        await terminal.until("9 large files ━")
        hub.release.set()
        assert await terminal.end() == 0
        assert "org/many is on disk: 36.0 MB in 10 files" in terminal.text


async def test_one_pull_at_a_time(mlxctl: Ctl, hub: FakeHub) -> None:
    locks = mlxctl.home / "hf" / "hub" / ".locks" / "models--org--tiny"
    locks.mkdir(parents=True)
    with (locks / "mlxctl-pull.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = await mlxctl("pull", NAME)

    assert (ended.code, ended.err) == (6, "mlxctl: org/tiny is being pulled already\n")
