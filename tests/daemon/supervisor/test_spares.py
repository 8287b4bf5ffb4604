"""Spares over real processes: taken by a load, nobody's crash, and gone with their daemon."""

import os
import signal
import sys

import anyio
import pytest

from daemon import processes
from daemon.app import Daemon
from daemon.pool import messages as m
from daemon.supervisor import launch
from tests.daemon.running import (
    Asker,
    fake_model,
    generate,
    pid_of,
    running_daemon,
    temporary_home,
)
from tests.fakes.engine import FakeConfig

pytestmark = pytest.mark.anyio


async def spare_pid(daemon: Daemon) -> int:
    """The process that waits, once it has been started."""
    with anyio.fail_after(20):
        while (held := daemon.supervisor._spares._held) is None:
            await daemon.kernel.changed()
    await held.spawned.wait()
    assert held.process is not None
    return held.process.pid


async def test_a_load_takes_the_spare_and_another_follows() -> None:
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            first = await spare_pid(daemon)
            asker, model = Asker(daemon), fake_model(home, "parrot", FakeConfig(reply="polly"))
            granted = await asker.acquire(model)
            assert pid_of(daemon, "w1") == first
            assert await generate(home, granted, "hi", 5) == "polly"
            assert "load.ready" in (home.logs_dir / "worker-w1.log").read_text()
            assert await spare_pid(daemon) != first
            assert list(home.run_dir.glob("w-*.lock")) == [home.worker_lock("w1")]
            await _release(daemon, granted)
            assert isinstance(await asker.unload(model), m.AnswerUnloaded)
            assert processes.start_time(first) is None


async def test_it_sees_what_any_worker_sees() -> None:
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            await Asker(daemon).acquire(fake_model(home, "parrot", FakeConfig()))
            assert pid_of(daemon, "w1") == pid
            environ = await anyio.Path(f"/proc/{pid}/environ").read_bytes()
        seen = {part.partition(b"=")[0].decode() for part in environ.split(b"\0") if part}
        assert {"PATH", "HF_HUB_OFFLINE"} <= seen
        assert not {name for name in seen if name.startswith("PYTHON")} - {"PYTHONUNBUFFERED"}


async def test_it_ends_with_its_daemon() -> None:
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
        await processes.wait_exit(pid)


async def test_a_spare_that_is_killed_is_no_models_crash() -> None:
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            os.kill(pid, signal.SIGKILL)
            await _until_there_is_none(daemon)
            assert daemon.kernel.pool.failures == {}
            assert daemon.kernel.pool.spare.retry_at_ms > 0
            answer = await Asker(daemon).load(fake_model(home, "parrot"))
            assert isinstance(answer, m.AnswerLoaded)
            assert daemon.kernel.pool.failures == {}


async def test_a_load_that_takes_a_dead_spare_starts_a_worker_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies when nobody has noticed yet, at the last moment there is."""
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            host = daemon.supervisor._host
            hand_over = host.hand_over

            async def too_late(process: object, spare: str, worker: str) -> None:
                os.kill(pid, signal.SIGKILL)
                await hand_over(process, spare, worker)  # type: ignore[arg-type]

            monkeypatch.setattr(host, "hand_over", too_late)
            answer = await Asker(daemon).load(fake_model(home, "parrot"))
            assert isinstance(answer, m.AnswerLoaded)
            assert pid_of(daemon, "w1") not in (None, pid)
            assert daemon.kernel.pool.failures == {}


async def test_a_load_outlives_a_spare_that_neither_listens_nor_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "LISTEN_TIMEOUT_S", 0.0)
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            os.kill(pid, signal.SIGSTOP)
            held = daemon.supervisor._spares.reserve()
            assert await daemon.supervisor._spares.take(held, "w9") is None
            assert processes.start_time(pid) is None


async def test_a_spare_whose_end_is_noticed_before_its_load_takes_it_is_of_no_use() -> None:
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            spares = daemon.supervisor._spares
            held = spares.reserve()
            assert held is not None
            os.kill(pid, signal.SIGKILL)
            with anyio.fail_after(20):
                while held.process is not None and held.process.returncode is None:
                    await anyio.lowlevel.checkpoint()
            assert await spares.take(held, "w9") is None


async def test_short_memory_takes_the_spare_first() -> None:
    with temporary_home() as home:
        async with running_daemon(home, spare=True) as daemon:
            pid = await spare_pid(daemon)
            cause = m.Cause(command="test")
            await daemon.kernel.carry_out(m.ReportPressure(level="soft"), cause)
            await processes.wait_exit(pid)
            assert daemon.kernel.pool.spare.name is None


async def _until_there_is_none(daemon: Daemon) -> None:
    with anyio.fail_after(20):
        while daemon.kernel.pool.spare.name is not None:
            await daemon.kernel.changed()


async def _release(daemon: Daemon, granted: object) -> None:
    assert isinstance(granted, m.AnswerGranted)
    release = m.Release(leases=(granted.lease,))
    await daemon.kernel.carry_out(release, m.Cause(command="release"))
