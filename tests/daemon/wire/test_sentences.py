"""Every event in one plain sentence; unknown ones are shown as they are."""

from typing import Any, get_args

import msgspec
import pytest

from daemon.pool import messages as m
from daemon.wire.sentences import SENTENCES, cause_words, sentence

GLIMPSE = m.Model(
    key="k",
    name="mlxd/glimpse",
    path="/m",
    kind="vision",
    capabilities=("text",),
    weights_bytes=1,
    kv_token_bytes=1,
    context_tokens=2048,
)
TOLD: list[tuple[m.DurableEvent, str]] = [
    (
        m.DaemonStarted(
            generation=4,
            pid=812,
            boot_id="b",
            version="0.1.0",
            budget_bytes=24_000_000_000,
            memory_total_bytes=32_000_000_000,
        ),
        "mlxd 0.1.0 started as pid 812, run 4, budget 24.0 GB of 32.0 GB",
    ),
    (m.DaemonStopped(generation=4, reason="SIGTERM"), "mlxd stopped, run 4: SIGTERM"),
    (m.ClockJumped(by_ms=7_500_000), "the clock jumped ahead by 2h 5m; deadlines are shifted"),
    (
        m.ConfigChanged(keys=("pool.memory", "aliases.fast")),
        "configuration changed: pool.memory, aliases.fast",
    ),
    (
        m.LoadStarted(
            model=GLIMPSE,
            worker="w1",
            claim_bytes=1_200_000_000,
            kv_tokens=16384,
            rows_max=16,
            reason="acquire",
            asked_by=("mlx-bridge", "mlxctl"),
            over_budget=True,
        ),
        "loading for a request by mlx-bridge, mlxctl: 1.20 GB reserved, over the budget",
    ),
    (
        m.WorkerSpawned(worker="w1", pid=900, start_time=1.0, boot_id="b"),
        "worker w1 runs as pid 900",
    ),
    (
        m.LoadReady(
            worker="w1", model="g", measured_bytes=1_100_000_000, load_ms=840, context_tokens=2048
        ),
        "ready after 840 ms of loading: 1.10 GB measured, context 2,048 tokens",
    ),
    (
        m.LoadFailed(worker="w1", model="g", reason="out_of_memory", message="no room"),
        "could not be loaded (out of memory): no room",
    ),
    (
        m.WorkerAdopted(worker="w1", model="g", pid=900, measured_bytes=1, running=2),
        "worker w1 (pid 900) taken over alive with 2 requests running",
    ),
    (m.WorkerExited(worker="w1", model="g", expected=True, exit_code=0), "worker w1 ended"),
    (
        m.EvictStarted(
            worker="w1",
            model="g",
            reason="memory",
            wanted="qwen3-8b",
            needed_bytes=3_200_000_000,
            rule="coldest that is enough",
            candidates=(m.Candidate(model="g", claim_bytes=1, last_used_at_ms=1),),
        ),
        (
            "evicting: qwen3-8b needs 3.20 GB more; "
            "chosen from 1 candidate by the rule coldest that is enough"
        ),
    ),
    (
        m.EvictFinished(worker="w1", model="g", freed_bytes=3_000_000_000),
        "evicted: 3.00 GB freed",
    ),
    (
        m.EvictAbandoned(worker="w1", model="g", running=1),
        "stays after all: 1 request came in",
    ),
    (
        m.UnloadStarted(worker="w1", model="g", reason="ttl"),
        "unloading: idle for its whole TTL",
    ),
    (m.UnloadFinished(worker="w1", model="g", freed_bytes=512), "unloaded: 512 B freed"),
    (
        m.UnloadAbandoned(worker="w1", model="g", running=3),
        "stays after all: 3 requests came in",
    ),
    (m.ModelPinned(key="k", model="g"), "pinned: never evicted, never expired"),
    (m.DaemonSettled(generation=4), "run 4 has lasted: no failed start"),
    (
        m.ModelTtlChanged(key="k", model="g", ttl_ms=600_000),
        "may be unloaded after 10m without use",
    ),
    (m.ModelUnpinned(key="k", model="g"), "no longer pinned"),
    (
        m.ModelKept(key="k", model="g"),
        "asked for by a person: comes back after a restart",
    ),
    (
        m.ModelQuarantined(key="k", model="g", failures=5, message="it crashed"),
        "not tried any more after 5 failures: it crashed",
    ),
    (m.ModelUnquarantined(key="k", model="g"), "may be tried again"),
    (
        m.RequestRefused(
            key="k", model="g", code="over_budget", client="mlx-bridge", message="too big", count=3
        ),
        "refused mlx-bridge 3 times (over budget): too big",
    ),
    (
        m.ThrashNoticed(key="k", model="g", evictions=3, window_ms=600_000, clients=("a", "b")),
        "evicted 3 times in 10m; asked for by a, b",
    ),
    (m.MemoryPressure(level="soft"), "the system is short of memory: no new loads"),
    (
        m.MemoryResidue(worker="w1", model="g", residue_bytes=5_000_000_000, boot_id="b"),
        "5.00 GB did not come back after worker w1 ended; a reboot frees them",
    ),
    (
        m.UsageRecorded(
            key="k",
            model="g",
            window_ms=60_000,
            requests=2,
            prompt_tokens=1234,
            completion_tokens=56,
            busy_ms=2100,
        ),
        "2 requests: 1,234 tokens read, 56 written, busy 2.1 s of 1m",
    ),
    (
        m.UsageRecorded(
            key="k",
            model="g",
            window_ms=60_000,
            requests=2,
            prompt_tokens=1234,
            completion_tokens=56,
            busy_ms=2100,
            waits=m.Waits(requests=1, total_ms=4_000, longest_ms=4_000),
        ),
        (
            "2 requests: 1,234 tokens read, 56 written, busy 2.1 s of 1m; "
            "1 request waited, 4.0 s at most"
        ),
    ),
    (
        m.SafeModeEntered(unclean_starts=3, quarantined=("g",)),
        "safe mode after 3 unclean starts; not tried: g",
    ),
    (
        m.MemoryPressure(level="soft", trimmed=("g", "h")),
        "the system is short of memory: no new loads; told to drop their caches: g, h",
    ),
    (m.SafeModeLeft(reason="10 min went well"), "safe mode is over: 10 min went well"),
    (
        m.LogTailLost(lost_bytes=120, kept_as="17.jsonl.torn"),
        "120 bytes of a torn tail cut off, kept as 17.jsonl.torn",
    ),
]


def as_logged(event: m.DurableEvent) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return fields


@pytest.mark.parametrize(("event", "told"), TOLD, ids=lambda value: type(value).__name__)
def test_each_event_has_its_sentence(event: m.DurableEvent, told: str) -> None:
    assert sentence(as_logged(event)) == told


def test_no_kind_of_durable_event_is_left_out() -> None:
    kinds = {kind.__struct_config__.tag for kind in get_args(m.DurableEvent)}

    assert set(SENTENCES) == kinds
    assert {type(event) for event, _ in TOLD} == set(get_args(m.DurableEvent))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"signal": 9, "running": 1}, "worker w1 was killed by signal 9; 1 request failed"),
        (
            {"exit_code": 70, "said": "no memory"},
            "worker w1 ended unexpectedly with exit code 70, saying: no memory",
        ),
        ({}, "worker w1 ended unexpectedly"),
    ],
)
def test_unexpected_ends_say_how(fields: dict[str, Any], told: str) -> None:
    event = m.WorkerExited(worker="w1", model="g", expected=False, **fields)

    assert sentence(as_logged(event)) == told


def test_evictions_for_other_reasons_than_memory() -> None:
    started = {"type": "evict.started", "wanted": "b", "needed_bytes": 1, "rule": "lru"}

    assert sentence(started | {"reason": "workers_max", "candidates": []}) == (
        "evicting: b needs a free place (workers_max); chosen from 0 candidates by the rule lru"
    )
    assert sentence(started | {"reason": "pressure", "candidates": []}) == (
        "evicting: the system is short of memory; chosen from 0 candidates by the rule lru"
    )
    assert sentence(started | {"reason": "request", "candidates": []}) == "evicting: as asked"


def test_events_of_the_future_are_shown_with_their_fields() -> None:
    assert sentence({"type": "moon.rose", "v": 1, "phase": "full"}) == "phase=full"
    assert sentence({"type": "load.ready", "v": 9, "model": "g", "took": 1}) == "took=1"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ({"command": "acquire", "client": "mlx-bridge", "pid": 1}, "mlx-bridge acquire"),
        ({"command": "report_ready"}, "worker"),
        ({"command": "tick"}, "timer"),
        ({"command": "start"}, "start-up"),
        ({"command": "stopped"}, "shutdown"),
        ({"command": "something_new"}, "something_new"),
    ],
)
def test_causes(cause: dict[str, Any], words: str) -> None:
    assert cause_words(cause) == words
