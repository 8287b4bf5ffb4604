"""Restarts, reloads and snapshots of the shipped daemon, over real workers."""

import re

import anyio
import msgspec
import pytest

from daemon import processes
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.state import STATE_VERSION, Idle, Limits, Pool
from daemon.wire.client import open_control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import Home
from tests.daemon.running import GB, Asker, fake_model, pid_of, running_daemon, temporary_home

pytestmark = pytest.mark.anyio


async def test_the_pool_comes_back_after_an_orderly_stop() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as first:
            await Asker(first).load(fake_model(home, "parrot"))
            await first.stop("test")
        async with running_daemon(home) as second:
            with anyio.fail_after(30):
                while not any(isinstance(s, Idle) for s in second.kernel.pool.slots.values()):
                    await second.kernel.changed()
            (slot,) = second.kernel.pool.slots.values()
            assert slot.tenant.model.name == "parrot"
            await second.stop("test")


async def test_what_a_person_unloaded_stays_unloaded() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as first:
            model = fake_model(home, "parrot")
            await Asker(first).load(model)
            await Asker(first).unload(model)
            await first.stop("test")
        async with running_daemon(home) as second:
            assert not second.kernel.pool.slots
            assert not second.kernel.pool.wishes
            await second.stop("test")


async def test_detach_leaves_workers_for_the_next_daemon() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as first:
            await Asker(first).load(fake_model(home, "parrot"))
            pid = pid_of(first, "w1")
            assert pid is not None
            await first.stop("upgrade", detach=True)
        assert processes.start_time(pid) is not None
        async with running_daemon(home) as second:
            (slot,) = second.kernel.pool.slots.values()
            assert slot.tenant.worker == "w1"
            assert slot.tenant.process is not None
            assert slot.tenant.process.pid == pid
            await second.stop("test")
        assert processes.start_time(pid) is None


def _replayed(home: Home, *, use_snapshot: bool) -> tuple[Pool, int]:
    log, report = EventLog.open(
        home.events_dir, OsDisk(), state_version=STATE_VERSION, writable=False
    )
    pool, after = Pool(limits=Limits(budget_bytes=10 * GB)), 0
    if use_snapshot:
        assert report.snapshot is not None
        pool = msgspec.msgpack.decode(report.snapshot.state, type=Pool)
        after = report.replay_after
    for record in log.replay(after):
        for event in record.events:
            pool = evolve(pool, event, record.at_ms)
    log.close()
    return pool, after


async def test_a_snapshot_gives_what_the_whole_log_gives() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            asker, model = Asker(daemon), fake_model(home, "parrot")
            await asker.load(model)
            await daemon.kernel.write_snapshot()
            await asker.unload(model)
            await asker.load(model)
            await daemon.stop("test")
        whole, _ = _replayed(home, use_snapshot=False)
        short, after = _replayed(home, use_snapshot=True)
        assert after > 0
        assert short == whole


async def test_a_changed_configuration_is_applied_and_recorded() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            home.config_file.write_text(
                '[pool]\nmemory = "2G"\nworkers_max = 3\n[worker]\nspare = false\n'
            )
            async with open_control(str(home.control_socket), "test") as control:
                changed = await control.reload_config()
                assert set(changed.keys) == {"pool.memory", "pool.workers_max"}
                assert (await control.status()).budget_bytes == 2 * GB
                seq = daemon.kernel.seq
                again = await control.reload_config()
                assert again.keys == ()
                assert daemon.kernel.seq == seq, "nothing changed, nothing is recorded"
            await daemon.stop("test")


async def test_a_bad_configuration_changes_nothing_and_says_where() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            seq, budget = daemon.kernel.seq, daemon.kernel.pool.budget_bytes
            home.config_file.write_text("[pool]\nmemory = \n")
            async with open_control(str(home.control_socket), "test") as control:
                with pytest.raises(MlxdError) as caught:
                    await control.reload_config()
            assert caught.value.code is Code.INVALID_REQUEST
            assert "config.toml:2:" in caught.value.fault.message
            assert (daemon.kernel.seq, daemon.kernel.pool.budget_bytes) == (seq, budget)
            await daemon.stop("test")


async def test_status_warns_of_a_bad_configuration_until_a_reload_succeeds() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            good = '[pool]\nmemory = "10G"\n[worker]\nspare = false\n'
            home.config_file.write_text(good + "[pool\n")
            async with open_control(str(home.control_socket), "test") as control:
                assert (await control.status()).warnings == ()
                with pytest.raises(MlxdError):
                    await daemon.reload_config(m.Cause(command="SIGHUP"))
                (first,) = (await control.status()).warnings
                assert f"{home.config_file}:5:" in first
                home.config_file.write_text("[pool]\nmemroy = 1\n")
                with pytest.raises(MlxdError):
                    await control.reload_config()
                (second,) = (await control.status()).warnings
                assert "memroy" in second
                since = re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d", first)
                assert since is not None
                assert since[0] in second, "as long as the first mistake"
                home.config_file.write_text(good)
                await control.reload_config()
                assert (await control.status()).warnings == ()
            await daemon.stop("test")


async def test_verbs_over_the_socket() -> None:
    with temporary_home() as home:
        async with running_daemon(home) as daemon:
            model = fake_model(home, "parrot")
            await Asker(daemon).load(model)
            async with open_control(str(home.control_socket), "test") as control:
                await control.pin("parrot")
                assert model.model.key in daemon.kernel.pool.pins
                with pytest.raises(MlxdError) as caught:
                    await control.evict("parrot")
                assert caught.value.code is Code.CONFLICT
                await control.unpin("parrot")
                await control.set_ttl("parrot", 3600)
                (shown,) = (await control.status()).models
                assert shown.expires_at_ms is not None
                await control.set_ttl("parrot", None)
                (shown,) = (await control.status()).models
                assert shown.expires_at_ms is None
                assert (await control.evict("parrot")).model == "parrot"
                assert not daemon.kernel.pool.slots
            await daemon.stop("test")
