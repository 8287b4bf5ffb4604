"""What the daemon sees to: awake exactly while a model is at work, logs cut back meanwhile."""

import os
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from daemon import upkeep
from daemon.pool import messages as m
from daemon.pool.state import Limits, Pool
from daemon.supervisor.awake import Awake
from daemon.supervisor.launch import LOG_BYTES_MAX
from daemon.upkeep import is_at_work, see_to
from tests.daemon.running import PERSON, Asker, fake_model, running_daemon, temporary_home
from tests.daemon.supervisor.test_awake import Caffeinate
from tests.e2e.service import eventually

pytestmark = pytest.mark.anyio


async def test_awake_while_a_model_is_lent_and_no_longer(tmp_path: Path) -> None:
    caffeinate = Caffeinate(tmp_path)
    awake = Awake((str(caffeinate.path), "-i", "-w", str(os.getpid())))
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            asker, model, kernel = Asker(daemon), fake_model(home, "parrot"), daemon.kernel
            await asker.load(model)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    see_to, lambda: kernel.pool, awake, home.logs_dir, home.run_dir, 0.01
                )
                granted = await asker.acquire(model)
                assert isinstance(granted, m.AnswerGranted)
                assert is_at_work(kernel.pool)
                await heard(caffeinate, f"-i -w {os.getpid()}")
                await kernel.send(m.Release(leases=(granted.lease,)), PERSON)
                await heard(caffeinate, f"-i -w {os.getpid()}", "ended")
                assert not is_at_work(kernel.pool)
                tasks.cancel_scope.cancel()
            await daemon.stop("test")


async def heard(caffeinate: Caffeinate, *expected: str) -> None:
    """Looked for beside the event loop, which goes on."""
    await anyio.to_thread.run_sync(eventually, caffeinate.said, lambda lines: lines == [*expected])


async def test_a_long_log_of_a_running_worker_is_cut_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LOOKS_A_LOG", 2)
    log = tmp_path / "worker-w1.log"
    empty = Pool(limits=Limits(budget_bytes=1))
    log.write_text("line\n" * (LOG_BYTES_MAX // 4))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(see_to, lambda: empty, Awake(None), tmp_path, tmp_path, 0.001)
        await anyio.to_thread.run_sync(
            eventually, lambda: log.stat().st_size, lambda size: size <= LOG_BYTES_MAX
        )
        tasks.cancel_scope.cancel()
    assert set(log.read_text().splitlines()) == {"line"}
