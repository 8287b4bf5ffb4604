"""Answers of a daemon to show: plausible defaults, of which a test changes what it is about."""

from typing import Any

import msgspec

from daemon.wire import control as c

NOW_MS = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC"""


def resident(**fields: Any) -> c.ResidentModel:
    base = c.ResidentModel(
        name="mlxd/glimpse",
        path="/models/glimpse",
        kind="vision",
        capabilities=("text", "vision"),
        state="idle",
        worker="w1",
        pid=900,
        claim_bytes=1_200_000_000,
        measured_bytes=1_100_000_000,
        context_tokens=2048,
        leases=0,
        running=0,
        progress=1.0,
        pinned=False,
        loaded_at_ms=NOW_MS - 60_000,
        last_used_at_ms=NOW_MS - 30_000,
        expires_at_ms=NOW_MS + 300_000,
    )
    return msgspec.structs.replace(base, **fields)


def status(**fields: Any) -> c.StatusView:
    base = c.StatusView(
        id=0,
        version="0.1.0",
        pid=812,
        generation=3,
        started_at_ms=NOW_MS - 11_520_000,
        now_ms=NOW_MS,
        seq=17,
        budget_bytes=24_000_000_000,
        committed_bytes=1_200_000_000,
        memory_total_bytes=32_000_000_000,
        rss_bytes=40_000_000,
        home="/home/ada/.mlxd",
        read_only=False,
        warnings=(),
        models=(resident(),),
        queue=(),
    )
    return msgspec.structs.replace(base, **fields)


def known(**fields: Any) -> c.KnownModel:
    base = c.KnownModel(
        name="mlxd/glimpse",
        path="/models/glimpse",
        source="bundled",
        kind="vision",
        capabilities=("text", "vision", "tools"),
        weights_bytes=6_540_000,
        context_tokens=2048,
        state=None,
        created_at_ms=NOW_MS,
        quantization="4-bit",
        claim_bytes=300_000_000,
        fits="now",
    )
    return msgspec.structs.replace(base, **fields)


LINES = (
    (
        '{"seq":1,"at_ms":1790000000000,"cause":{"command":"start"},"events":[{"type":"daemon.started",'
        '"v":1,"generation":1,"pid":812,"boot_id":"b","version":"0.1.0","budget_bytes":24000000000,'
        '"memory_total_bytes":32000000000}],"chain":"aa"}'
    ),
    (
        '{"seq":2,"at_ms":1790000001000,"cause":{"command":"load","client":"mlxctl","pid":9},"events":'
        '[{"type":"load.started","v":1,"model":{"key":"k","name":"mlxd/glimpse","path":"/m",'
        '"kind":"vision","capabilities":["text"],"weights_bytes":1,"kv_token_bytes":1,'
        '"context_tokens":2048},"worker":"w1","claim_bytes":1200000000,"kv_tokens":16384,'
        '"rows_max":16,"reason":"load","asked_by":["mlxctl"]}],"chain":"bb"}'
    ),
    (
        '{"seq":3,"at_ms":1790000001100,"cause":{"command":"report_spawned"},"events":'
        '[{"type":"worker.spawned","v":1,"worker":"w1","pid":900,"start_time":1.5,"boot_id":"b"}],'
        '"chain":"cc"}'
    ),
    (
        '{"seq":4,"at_ms":1790000002000,"cause":{"command":"report_ready"},"events":'
        '[{"type":"load.ready","v":1,"worker":"w1","model":"mlxd/glimpse","measured_bytes":1100000000,'
        '"load_ms":840,"context_tokens":2048}],"chain":"dd"}'
    ),
)
"""Four records of a real log's form."""
