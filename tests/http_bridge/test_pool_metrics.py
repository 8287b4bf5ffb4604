"""The pool in Prometheus' words: gauges of the status, counters of the log, exact at a scrape."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from daemon.wire import control as c
from daemon.wire.settings import HttpSettings
from http_bridge.pool_metrics import PoolMetrics
from http_bridge.run import open_bridge
from tests.fakes.daemon import FakeModel, open_fake_daemon, says
from tests.http_bridge.conftest import OpenSetup, Setup
from tests.http_bridge.test_metrics import scrape

MODEL = {"key": "k", "name": "m", "path": "/m"}


def line(*events: dict[str, Any]) -> str:
    """A record of the log, as DESIGN's form has it."""
    return json.dumps({"seq": 1, "at_ms": 1, "cause": {}, "events": events, "chain": "0"})


def counted(*records: str) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    metrics = PoolMetrics(registry)
    for record in records:
        metrics.take(record)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value and not sample.name.endswith("_created")
    }


@pytest.mark.parametrize(
    ("events", "name"),
    [
        (
            [{"type": "load.started", "model": MODEL, "worker": "1", "reason": "acquire"}],
            ("mlxd_loads_total", "m", "acquire"),
        ),
        (
            [{"type": "load.ready", "model": "m", "worker": "1", "load_ms": 2000}],
            ("mlxd_load_seconds_count", "m"),
        ),
        (
            [{"type": "load.failed", "model": "m", "worker": "1", "reason": "timeout"}],
            ("mlxd_load_failures_total", "m", "timeout"),
        ),
        (
            [
                {"type": "evict.started", "model": "m", "worker": "1", "reason": "memory"},
                {"type": "evict.finished", "model": "m", "worker": "1", "freed_bytes": 5},
            ],
            ("mlxd_evictions_total", "m", "memory"),
        ),
        (
            [{"type": "evict.finished", "model": "m", "worker": "1", "freed_bytes": 5}],
            ("mlxd_evictions_total", "m", "unknown"),
        ),
        (
            [
                {"type": "evict.started", "model": "m", "worker": "1", "reason": "memory"},
                {"type": "evict.abandoned", "model": "m", "worker": "1", "running": 1},
            ],
            ("mlxd_evictions_abandoned_total", "m"),
        ),
        (
            [{"type": "unload.started", "model": "m", "worker": "1", "reason": "ttl"}],
            ("mlxd_unloads_total", "m", "ttl"),
        ),
        (
            [{"type": "worker.exited", "model": "m", "worker": "1", "expected": False}],
            ("mlxd_worker_crashes_total", "m"),
        ),
        (
            [{"type": "request.refused", "model": "m", "key": "k", "code": "over_budget"}],
            ("mlxd_refusals_total", "m", "over_budget"),
        ),
    ],
)
def test_events_are_counted(events: list[dict[str, Any]], name: tuple[str, ...]) -> None:
    assert counted(line(*events))[name] == 1
    assert counted(*map(line, events))[name] == 1


def test_a_load_after_a_crash_is_a_restart() -> None:
    load = {"type": "load.started", "model": MODEL, "worker": "2", "reason": "retry"}
    crash = {"type": "worker.exited", "model": "m", "worker": "1", "expected": False}
    orderly = {**crash, "expected": True}
    restarts = ("mlxd_worker_restarts_total", "m")
    assert restarts not in counted(line(load), line(orderly), line(load))
    found = counted(line(crash), line(load), line(load))
    assert (found[restarts], found["mlxd_loads_total", "m", "retry"]) == (1, 2)


def test_an_abandoned_eviction_is_none() -> None:
    started = {"type": "evict.started", "model": "m", "worker": "1", "reason": "memory"}
    abandoned = {"type": "evict.abandoned", "model": "m", "worker": "1", "running": 1}
    found = counted(line(started), line(abandoned))
    assert ("mlxd_evictions_total", "m", "memory") not in found


def test_what_is_unknown_is_passed_over() -> None:
    strange: list[dict[str, Any]] = [
        {"type": "model.pinned", "key": "k", "model": "m"},
        {"type": "brand.new", "worker": 3},
        {},
    ]
    assert counted(line(*strange)) == {}
    refused = {"type": "request.refused", "model": "m", "code": "busy", "count": 7}
    assert counted(line(refused)) == {("mlxd_refusals_total", "m", "busy"): 7}


async def load(setup: Setup, times: int = 1) -> None:
    event = {"type": "load.started", "model": MODEL, "worker": "1", "reason": "acquire"}
    setup.fake.log += [line(event)] * times


@pytest.mark.anyio
async def test_gauges_show_the_pool(open_setup: OpenSetup) -> None:
    async with open_setup(FakeModel("m", says()), FakeModel("n", says())) as setup:
        waiting = c.QueuedRequest(model="m", client="x", since_ms=0, deadline_at_ms=None)
        setup.fake.queue = (waiting,)
        found = await scrape(setup)
    assert found["mlxd_up",] == 1
    assert found["mlxd_pool_budget_bytes",] == 10_000
    assert found["mlxd_pool_committed_bytes",] == 0
    assert found["mlxd_memory_total_bytes",] == 20_000
    assert found["mlxd_daemon_rss_bytes",] == 1
    assert found["mlxd_queue_requests",] == 1
    assert found["mlxd_resident_models", "idle"] == 2
    assert found["mlxd_model_claim_bytes", "m"] == 1
    assert found["mlxd_model_measured_bytes", "n"] == 1
    assert found["mlxd_model_running_requests", "n"] == 0


@pytest.mark.anyio
async def test_each_scrape_reads_what_came_since_the_last(open_setup: OpenSetup) -> None:
    loads = ("mlxd_loads_total", "m", "acquire")
    async with open_setup(FakeModel("m", says())) as setup:
        await load(setup, 3)
        assert loads not in await scrape(setup)  # before anybody asked
        assert loads not in await scrape(setup)
        await load(setup, 2)
        assert (await scrape(setup))[loads] == 2
        await load(setup)
        assert (await scrape(setup))[loads] == 3
        assert (await scrape(setup))[loads] == 3
    assert [watch.after for watch in setup.fake.watches] == [3, 5]


@pytest.mark.anyio
async def test_counting_goes_on_across_daemons(folder: Path) -> None:
    event = {"type": "load.started", "model": MODEL, "worker": "1", "reason": "acquire"}
    loads = ("mlxd_loads_total", "m", "acquire")
    socket = str(folder / "mlxd.sock")
    async with open_bridge(socket, HttpSettings(port=0), stop_grace_s=0) as (_, port):
        async with open_fake_daemon(folder) as first:
            setup = Setup(first, port)
            async with setup.http, setup.sdk, setup.anthropic:
                await scrape(setup)
                first.log.append(line(event))
                assert (await scrape(setup))[loads] == 1
        setup = Setup(first, port)
        async with setup.http, setup.sdk, setup.anthropic:
            gone = await scrape(setup)
        assert (gone["mlxd_up",], gone[loads], gone["mlxd_pool_budget_bytes",]) == (0, 1, 0)
        async with open_fake_daemon(folder) as second:
            second.log += [line(event)] * 3
            setup = Setup(second, port)
            async with setup.http, setup.sdk, setup.anthropic:
                found = await scrape(setup)
        assert (found["mlxd_up",], found[loads]) == (1, 3)
