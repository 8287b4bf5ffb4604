"""Restarts of a real daemon with real workers: the pool is as people made it, each time."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import open_control
from daemon.wire.generation import generate
from daemon.wire.locks import is_held
from tests.e2e.service import STOP_TIMEOUT_S, Service, config_toml, eventually, started
from tests.e2e.vision_models import BUNDLED

pytestmark = pytest.mark.e2e

TTL_S = 3_600.0
SECRET = "my name is Xanthippe"
ALIASES = f'[aliases]\nhouse = ["{BUNDLED}"]'
Death = Literal["stopped", "killed", "killed with its workers"]


@pytest.fixture
def home() -> Iterator[Service]:
    """A home; its daemons come and go in the test, and its workers end with it."""
    with tempfile.TemporaryDirectory(prefix="mlxd-r-") as folder:
        (Path(folder) / "config.toml").write_text(config_toml({}, ALIASES), "utf-8")
        service = Service(Path(folder), 0, 0)
        yield service
        if living_workers(service):  # the test failed: let a daemon take its workers along
            with daemon(service):
                pass


@contextmanager
def daemon(home: Service) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon on this home, stopped at the block's end if it still runs."""
    with started(home.home, "daemon") as (process, _):
        yield process


def end(process: subprocess.Popen[bytes], home: Service, death: Death) -> None:
    """End the daemon, and wait until it is gone."""
    pids = [model.pid for model in home.status().models if model.pid is not None]
    process.send_signal(signal.SIGTERM if death == "stopped" else signal.SIGKILL)
    process.wait(STOP_TIMEOUT_S)
    if death == "killed with its workers":
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: living_workers(home), lambda found: not found)


def living_workers(home: Service) -> list[Path]:
    return [lock for lock in home.home.glob("run/w-*.lock") if is_held(lock)]


def resident(home: Service) -> c.ResidentModel:
    """The one model in memory, once it is idle."""
    status = eventually(home.status, lambda s: [m.state for m in s.models] == ["idle"], within_s=60)
    return status.models[0]


async def load(home: Service, model: str, *, ttl_s: float | None = None, pin: bool = False) -> None:
    async with open_control(home.socket, "e2e") as control:
        await control.load(model, ttl_s=ttl_s, pin=pin)


@pytest.mark.parametrize(
    "death", ["killed", "killed with its workers", pytest.param("stopped", marks=pytest.mark.slow)]
)
def test_a_loaded_model_comes_back_with_its_remaining_time(home: Service, death: Death) -> None:
    with daemon(home) as first:
        anyio.run(lambda: load(home, "house", ttl_s=TTL_S))
        before = resident(home)
        end(first, home, death)
    with daemon(home):
        after = resident(home)
        types = [event["type"] for event in home.events()]
        started_for = [e["reason"] for e in home.events() if e["type"] == "load.started"]
    assert (after.name, after.pinned) == (BUNDLED, False)
    assert before.last_used_at_ms is not None
    assert before.expires_at_ms == before.last_used_at_ms + TTL_S * 1000
    assert after.expires_at_ms is not None
    assert after.expires_at_ms <= before.expires_at_ms, "its time does not begin anew"
    assert after.expires_at_ms > before.expires_at_ms - 60_000
    if death == "killed":
        assert after.pid == before.pid, "the same process"
        assert "worker.adopted" in types
        assert started_for == ["load"]
    else:
        assert after.pid != before.pid
        assert started_for == ["load", "restore"]


@pytest.mark.parametrize(
    "death", ["stopped", pytest.param("killed with its workers", marks=pytest.mark.slow)]
)
def test_a_pinned_model_comes_back_pinned(home: Service, death: Death) -> None:
    with daemon(home) as first:
        anyio.run(lambda: load(home, BUNDLED, pin=True))
        end(first, home, death)
    with daemon(home):
        after = resident(home)
        assert (after.name, after.pinned, after.expires_at_ms) == (BUNDLED, True, None)
        refused = home.mlxctl("evict", "house", check=False)
        assert refused.returncode == 6, "an alias leads to it, and it is pinned"
        assert "unpin" in refused.stderr


def test_what_the_configuration_names_is_preloaded(home: Service) -> None:
    config = home.home / "config.toml"
    config.write_text(config.read_text("utf-8").replace("[pool]", '[pool]\npreload = ["house"]'))
    with daemon(home):
        assert resident(home).name == BUNDLED
        (load_started,) = [e for e in home.events() if e["type"] == "load.started"]
    assert (load_started["reason"], load_started["asked_by"]) == ("preload", ["mlxd"])


def test_three_short_runs_mean_safe_mode_until_a_person_clears_it(home: Service) -> None:
    config = home.home / "config.toml"
    config.write_text(config.read_text("utf-8") + "[safety]\nunclean_starts_max = 3\n")
    for _ in range(3):
        with daemon(home) as process:
            assert not home.status().safe_mode
            end(process, home, "killed")
    config.write_text(config.read_text("utf-8").replace("[pool]", '[pool]\npreload = ["house"]'))
    with daemon(home):
        assert home.status().safe_mode
        assert not home.status().models, "nothing is preloaded"
        anyio.run(lambda: load(home, BUNDLED))
        assert resident(home).name == BUNDLED, "loads on demand go on"
        home.mlxctl("safe-mode", "clear")
        assert not home.status().safe_mode
    reasons = [e["reason"] for e in home.events() if e["type"] == "load.started"]
    assert reasons == ["load"]
    (left,) = [e for e in home.events() if e["type"] == "safe_mode.left"]
    assert left["reason"] == "cleared by mlxctl"


def test_a_detached_daemon_leaves_its_worker_to_the_next(home: Service) -> None:
    with daemon(home) as first:
        anyio.run(lambda: load(home, BUNDLED))
        before = resident(home)
        home.mlxctl("detach")
        assert first.wait(STOP_TIMEOUT_S) == 0
    assert len(living_workers(home)) == 1
    with daemon(home):
        after = resident(home)
        assert (after.pid, after.worker) == (before.pid, before.worker)
    types = [event["type"] for event in home.events()]
    assert types.count("load.started") == 1
    assert types.index("daemon.stopped") < types.index("worker.adopted")


def test_sigterm_lets_a_stream_come_to_its_end_and_nobody_writes_it_down(home: Service) -> None:
    with daemon(home) as process:
        text, reason = anyio.run(_stream_across_sigterm, home, process)
        assert process.wait(STOP_TIMEOUT_S) == 0
    assert text
    assert reason in ("stop", "length")
    events = home.events()
    (exited,) = [e for e in events if e["type"] == "worker.exited"]
    assert (exited["expected"], exited["exit_code"], exited["running"]) == (True, 0, 0)
    (usage,) = [e for e in events if e["type"] == "usage.recorded"]
    assert usage["requests"] == 1
    assert events[-1]["type"] == "daemon.stopped"
    written = [
        p.read_bytes() for p in home.home.rglob("*") if p.is_file() and p.name != "config.toml"
    ]
    assert any(b"usage.recorded" in content for content in written)
    for secret in (SECRET, text):
        assert not any(secret.encode() in content for content in written), (
            "neither prompt nor answer"
        )


async def _stream_across_sigterm(
    home: Service, process: subprocess.Popen[bytes]
) -> tuple[str, str]:
    """What a stream says that was begun before the signal and ends after it."""

    def request(granted: c.Granted) -> d.Generate:
        message = d.ChatMessage(role="user", parts=(d.TextPart(text=f"Hello! {SECRET}"),))
        return d.Generate(lease=granted.lease, messages=(message,), max_tokens=300)

    text = ""
    async with (
        open_control(home.socket, "e2e") as control,
        generate(control, BUNDLED, request, client="e2e", deadline_ms=60_000) as (_, answer),
    ):
        async for delta in answer:
            if not text:
                process.send_signal(signal.SIGTERM)
            text += delta.text
        assert answer.done is not None
        return text, answer.done.finish_reason
