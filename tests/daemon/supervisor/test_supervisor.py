"""The shipped daemon, kernel and supervisor over real worker processes."""

import os
import signal
import subprocess
from collections.abc import Callable

import anyio
import pytest

from daemon import processes
from daemon.app import Daemon
from daemon.pool import messages as m
from daemon.pool.state import Idle, Slot
from daemon.wire.errors import Code
from daemon.wire.paths import Home, make_private
from tests.daemon.running import (
    FAKE_WORKER,
    Asker,
    fake_model,
    generate,
    pid_of,
    running_daemon,
    temporary_home,
)
from tests.fakes.engine import FakeConfig

pytestmark = pytest.mark.anyio


async def test_load_use_unload_leaves_nothing() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            asker, model = Asker(daemon), fake_model(home, "parrot", FakeConfig(reply="polly"))
            assert isinstance(await asker.load(model), m.AnswerLoaded)
            granted = await asker.acquire(model)
            assert await generate(home, granted, "hi", 7) == "pollypo"
            pid = pid_of(daemon, "w1")
            assert pid is not None
            busy = await asker.unload(model)
            assert isinstance(busy, m.AnswerRefused)
            assert busy.fault.code is Code.CONFLICT
            assert isinstance(granted, m.AnswerGranted)
            release = m.Release(leases=(granted.lease,))
            await daemon.kernel.carry_out(release, m.Cause(command="release"))
            assert isinstance(await asker.unload(model), m.AnswerUnloaded)
            assert processes.start_time(pid) is None
            assert daemon.kernel.pool.slots == {}
            assert list(home.run_dir.glob("w-*")) == []


async def test_a_worker_that_crashes_while_loading_fails_every_waiter_alike() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            model = fake_model(home, "bad", FakeConfig(crash="load", load_ms=50))
            answers = []

            async def ask() -> None:
                answers.append(await Asker(daemon).acquire(model))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                tasks.start_soon(ask)
            faults = [a.fault for a in answers if isinstance(a, m.AnswerRefused)]
            assert [fault.code for fault in faults] == [Code.WORKER_FAILED] * 2
            assert {fault.hint for fault in faults} == {"mlxctl logs worker bad"}
            assert daemon.kernel.pool.slots == {}


async def test_under_pressure_workers_drop_their_caches_and_say_what_they_hold() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            config = FakeConfig(weights_bytes=100 << 20, keeps_bytes=80 << 20)
            granted = await Asker(daemon).acquire(fake_model(home, "keeper", config))
            await generate(home, granted, "hi", 3)
            await _until(daemon, lambda slot: slot.tenant.measured_bytes == 180 << 20)

            soft = m.ReportPressure(level="soft")
            await daemon.kernel.send(soft, m.Cause(command="system"))

            await _until(daemon, lambda slot: slot.tenant.measured_bytes == 100 << 20)
            assert isinstance(granted, m.AnswerGranted)
            await _end(daemon, granted.lease)


async def test_how_fast_a_model_writes_is_known_once_it_has() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            model = fake_model(home, "steady", FakeConfig(reply="x", step_ms=10))
            granted = await Asker(daemon).acquire(model)
            await generate(home, granted, "hi", 30)

            await _until(daemon, lambda slot: slot.tenant.tokens_per_s > 0)
            [slot] = daemon.kernel.pool.slots.values()
            assert slot.tenant.tokens_per_s <= 100, "a step takes 10 ms at least"
            assert isinstance(granted, m.AnswerGranted)
            await _end(daemon, granted.lease)


async def test_the_next_daemon_adopts_a_living_worker() -> None:
    with temporary_home() as home:
        model = fake_model(home, "parrot", FakeConfig(reply="polly"))
        async with running_daemon(home) as first:
            await Asker(first).load(model)
            pid = pid_of(first, "w1")
        async with running_daemon(home) as second:
            answer = await Asker(second).acquire(model)
            assert isinstance(answer, m.AnswerGranted)
            assert answer.worker == "w1"
            assert second.kernel.pool.generation == 2
            assert await generate(home, answer, "hi", 5) == "polly"
            assert pid_of(second, "w1") == pid
            await _end(second, answer.lease)


async def test_a_running_request_outlives_its_daemon_and_protects_its_model() -> None:
    with temporary_home() as home:
        model = fake_model(home, "slow", FakeConfig(reply="x", step_ms=20))
        text: list[str] = []
        async with anyio.create_task_group() as tasks:
            async with running_daemon(home) as first:
                granted = await Asker(first).acquire(model)
                began = anyio.Event()

                async def stream() -> None:
                    began.set()
                    text.append(await generate(home, granted, "hi", 60))

                tasks.start_soon(stream)
                await began.wait()
                await _until(first, lambda slot: getattr(slot, "running", 0) == 1)
            async with running_daemon(home) as second:
                await _until(second, lambda slot: getattr(slot, "running", 0) == 1)
                refused = await Asker(second).unload(model)
                assert isinstance(refused, m.AnswerRefused)
                assert refused.fault.code is Code.CONFLICT
                await _until(second, lambda slot: isinstance(slot, Idle))
                assert isinstance(await Asker(second).unload(model), m.AnswerUnloaded)
        assert text == ["x" * 60]


async def test_a_model_whose_worker_died_without_a_daemon_comes_back() -> None:
    with temporary_home() as home:
        model = fake_model(home, "parrot")
        async with running_daemon(home) as first:
            await Asker(first).load(model)
            pid = pid_of(first, "w1")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await processes.wait_exit(pid)
        async with running_daemon(home) as second:
            answer = await Asker(second).acquire(model)
            assert isinstance(answer, m.AnswerGranted)
            assert answer.worker == "w2", "loaded anew"
            await _end(second, answer.lease)


async def test_a_worker_that_the_log_does_not_know_is_retired() -> None:
    with temporary_home() as home:
        stray = _start_worker(home, "w77")
        async with running_daemon(home):
            with anyio.fail_after(20):
                await processes.wait_exit(stray.pid)
        assert stray.wait(5) == 0


async def test_stop_unloads_everything_and_ends_workers() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            for name in ("one", "two"):
                await Asker(daemon).load(fake_model(home, name))
            pids = [pid_of(daemon, w) for w in ("w1", "w2")]
            await daemon.stop("test")
            assert all(pid and processes.start_time(pid) is None for pid in pids)
            refused = await Asker(daemon).load(fake_model(home, "three"))
            assert isinstance(refused, m.AnswerRefused)
            assert refused.fault.code is Code.SHUTTING_DOWN


def _start_worker(home: Home, worker: str) -> subprocess.Popen[bytes]:
    make_private(home.root)
    make_private(home.run_dir)
    process = subprocess.Popen(
        [*FAKE_WORKER, "--worker", worker, "--run-dir", str(home.run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    return process


async def _until(daemon: Daemon, holds: Callable[[Slot], bool]) -> None:
    """Wait until the daemon's only slot is as wanted."""
    with anyio.fail_after(30):
        while not all(holds(slot) for slot in daemon.kernel.pool.slots.values()):
            await daemon.kernel.changed()


async def _end(daemon: Daemon, lease: str) -> None:
    await daemon.kernel.carry_out(m.Release(leases=(lease,)), m.Cause(command="release"))
    await daemon.stop("test")
