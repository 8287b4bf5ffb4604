"""Why a model is here, or is not: stories from real events, told as a whole."""

from datetime import UTC

import msgspec
import pytest

from ctl.plain import plain
from ctl.story import Story
from ctl.why import Explainer, Explanation
from daemon.pool import messages as m
from daemon.wire import control as c
from daemon.wire.records import read_record
from tests.ctl.views import NOW_MS, known, resident, status

GB = 10**9
A = m.Model(
    key="/a",
    name="a",
    path="/a",
    kind="text",
    capabilities=("text",),
    weights_bytes=3 * GB,
    kv_token_bytes=50_000,
    context_tokens=8192,
)
LOAD = m.LoadStarted(
    model=A,
    worker="w1",
    claim_bytes=4 * GB,
    kv_tokens=16_000,
    rows_max=16,
    reason="acquire",
    asked_by=("mlx-bridge",),
)
READY = m.LoadReady(
    worker="w1", model="a", measured_bytes=3 * GB, load_ms=2_500, context_tokens=8192
)
BRIDGE = m.Cause(command="acquire", client="mlx-bridge", pid=7)
PERSON = m.Cause(command="load", client="mlxctl", pid=9)
TIMER = m.Cause(command="tick")
Step = tuple[int, m.Cause, tuple[m.DurableEvent, ...]]
"""Seconds before now, cause, events."""

LOADED: list[Step] = [(600, BRIDGE, (LOAD,)), (590, TIMER, (READY,))]
USED = m.UsageRecorded(
    key="/a",
    model="a",
    window_ms=60_000,
    requests=12,
    prompt_tokens=1,
    completion_tokens=1,
    busy_ms=1,
)


def told(steps: list[Step], here: c.ResidentModel | None = None, **more: object) -> Explanation:
    story = Story("a")
    for seq, (before_s, cause, events) in enumerate(steps, 1):
        record = {"seq": seq, "at_ms": NOW_MS - before_s * 1000, "cause": cause, "events": events}
        story.take(read_record(msgspec.json.encode(record).decode()))
    on_disk = more.get("on_disk", known(name="a", path="/a", kind="text", weights_bytes=3 * GB))
    assert on_disk is None or isinstance(on_disk, c.KnownModel)
    queue = more.get("queue", ())
    return Explainer(story, here, on_disk, status(now_ms=NOW_MS, queue=queue), UTC).explain()


def slot(**fields: object) -> c.ResidentModel:
    base = resident(name="a", claim_bytes=4 * GB, measured_bytes=3 * GB, expires_at_ms=None)
    return msgspec.structs.replace(base, **fields)


def test_who_waits_for_it_is_counted() -> None:
    waiting = c.QueuedRequest(model="a", client="app", since_ms=NOW_MS - 9_000, deadline_at_ms=None)
    other = msgspec.structs.replace(waiting, model="b")
    text = plain(told(LOADED[:0], queue=(other, waiting)).page())

    assert "1 request for it waits now, for 9.0 s already" in text
    assert "mlxctl load --estimate a" in text


def test_back_after_its_worker_was_killed() -> None:
    killed = m.WorkerExited(worker="w1", model="a", exit_code=None, signal=9, expected=False)
    again = msgspec.structs.replace(LOAD, worker="w2", reason="restore", asked_by=("mlxd",))
    ready = msgspec.structs.replace(READY, worker="w2")
    steps: list[Step] = [*LOADED, (60, TIMER, (killed, again)), (50, TIMER, (ready,))]
    text = plain(told(steps, slot(worker="w2")).page())

    assert (
        "  Loaded in 10.0 s at 14:12:30 (50s ago, records 3 to 4), "
        "because it was in memory before.\n"
        "  Before that, at 14:12:20 (1m ago, record 3), worker w1 was killed by signal 9.\n"
    ) in text
    assert "1 crash in the log, 1 of them in the last 10 minutes" in text


def test_idle_and_pinned() -> None:
    pin: Step = (300, PERSON, (m.ModelPinned(key="/a", model="a"),))
    here = slot(pinned=True, last_used_at_ms=NOW_MS - 120_000)
    explanation = told([*LOADED, (100, TIMER, (USED,)), pin], here)

    assert plain(explanation.page()) == (
        "a is in memory, and nobody uses it now.\n"
        "  Loaded in 10.0 s at 14:03:30 (9m ago, records 1 to 2), for a request by mlx-bridge.\n"
        "  It takes 4.00 GB of the budget of 24.0 GB. Reserved: 4.00 GB = weights 3.00 GB + "
        "KV cache 800 MB (16,000 tokens) + overhead 200 MB; measured: 3.00 GB.\n"
        "  Idle since 14:11:20 (2m ago); 12 requests recorded since it was loaded.\n"
        "  Pinned by mlxctl load at 14:08:20 (5m ago, record 4): never evicted, never expired.\n"
    )


@pytest.mark.parametrize(
    ("steps", "here", "sentence"),
    [
        (
            [],
            slot(expires_at_ms=NOW_MS + 270_000, last_used_at_ms=NOW_MS - 30_000),
            (
                "Unless it is used, it is unloaded at 14:17:50 (in 4m): its TTL is 5m. Until then "
                "it goes only if its room is needed."
            ),
        ),
        (
            [(60, PERSON, (m.ModelTtlChanged(key="/a", model="a", ttl_ms=300_000),))],
            slot(expires_at_ms=NOW_MS + 270_000, last_used_at_ms=NOW_MS - 30_000),
            (
                "Unless it is used, it is unloaded at 14:17:50 (in 4m): its TTL is 5m, set by "
                "mlxctl load at 14:12:20 (1m ago, record 3). Until then it goes only if its room "
                "is needed."
            ),
        ),
        (
            [],
            slot(),
            "It has no TTL: it stays until it is unloaded, or its room is needed.",
        ),
        (
            [],
            slot(state="busy", running=1),
            "What is in use is never evicted and never expires.",
        ),
        (
            [
                (
                    60,
                    TIMER,
                    (m.WorkerAdopted(worker="w1", model="a", pid=5, measured_bytes=1, running=0),),
                )
            ],
            slot(),
            "mlxd took its worker over alive, pid 5, at 14:12:20 (1m ago, record 3).",
        ),
    ],
)
def test_what_protects_it(steps: list[Step], here: c.ResidentModel, sentence: str) -> None:
    assert sentence in told([*LOADED, *steps], here).sentences()


def test_a_use_that_came_before_the_load_is_not_counted() -> None:
    again = msgspec.structs.replace(LOAD, worker="w2", reason="load", asked_by=("mlxctl",))
    ready = msgspec.structs.replace(READY, worker="w2")
    exited = m.WorkerExited(worker="w1", model="a", expected=True)
    steps: list[Step] = [*LOADED, (500, TIMER, (USED,)), (400, TIMER, (exited,))]
    both = told([*steps, (300, PERSON, (again,)), (290, TIMER, (ready,))], slot())

    assert any(s.startswith("Loaded in 10.0 s at 14:08:30") for s in both.sentences())
    assert "In all the log: 2 loads, 0 evictions." in both.sentences()
    assert not any("12 requests" in s for s in both.sentences())


def test_evicted_with_all_who_were_looked_at() -> None:
    def one(name: str, why_not: str | None) -> m.Candidate:
        at = NOW_MS - 100_000
        return m.Candidate(model=name, claim_bytes=GB, last_used_at_ms=at, why_not=why_not)

    started = m.EvictStarted(
        worker="w1",
        model="a",
        reason="memory",
        wanted="big",
        needed_bytes=5 * GB,
        rule="lru: coldest first until enough",
        candidates=(one("a", None), one("b", "pinned"), one("d", None), one("e", None)),
        for_clients=("mlx-bridge",),
    )
    other = msgspec.structs.replace(started, worker="w9", model="d")
    finished = m.EvictFinished(worker="w1", model="a", freed_bytes=4 * GB)
    exited = m.WorkerExited(worker="w1", model="a", expected=True, exit_code=0)
    explanation = told([*LOADED, (40, BRIDGE, (started, other)), (38, TIMER, (exited, finished))])

    assert plain(explanation.page()) == (
        "a is not in memory: it was evicted.\n"
        "  Evicted at 14:12:40 (40s ago, record 3): big needed 5.00 GB more room, for mlx-bridge.\n"
        "  The rule: lru: coldest first until enough. These were looked at:\n"
        "    MODEL     SIZE  LAST USED  VERDICT\n"
        "    a      1.00 GB  1m before  evicted\n"
        "    b      1.00 GB  1m before  pinned\n"
        "    d      1.00 GB  1m before  evicted, too\n"
        "    e      1.00 GB  1m before  could have gone; was not needed\n"
        "  4.00 GB came free 2.0 s later (record 4).\n"
        "  It had been there: Loaded in 10.0 s at 14:03:30 (9m ago, records 1 to 2), for a request "
        "by mlx-bridge.\n"
        "  In all the log: 1 load, 1 eviction.\n"
        "  The next request for it loads it, or: mlxctl load a\n"
    )


def unloaded(reason: m.UnloadReason, cause: m.Cause) -> list[Step]:
    started = m.UnloadStarted(worker="w1", model="a", reason=reason)
    finished = m.UnloadFinished(worker="w1", model="a", freed_bytes=GB)
    return [*LOADED, (60, cause, (started,)), (59, TIMER, (finished,))]


@pytest.mark.parametrize(
    ("reason", "cause", "told_as"),
    [
        ("request", PERSON, "as asked, by mlxctl."),
        ("ttl", TIMER, "nobody had used it for its whole TTL."),
        ("shutdown", m.Cause(command="stop"), "mlxd was stopped."),
        ("pressure", TIMER, "the system was short of memory."),
    ],
)
def test_unloaded(reason: m.UnloadReason, cause: m.Cause, told_as: str) -> None:
    explanation = told(unloaded(reason, cause))

    assert explanation.headline == "a is not in memory: it was unloaded."
    assert explanation.sentences()[0] == f"Unloaded at 14:12:20 (1m ago, record 3): {told_as}"


def test_leaving_is_not_told_as_done() -> None:
    unloading = m.UnloadStarted(worker="w1", model="a", reason="request")
    evicting = m.EvictStarted(
        worker="w1",
        model="a",
        reason="request",
        wanted="",
        needed_bytes=0,
        rule="",
        candidates=(),
        for_clients=("mlxctl",),
    )
    for started, told_as in (
        (unloading, "Unloading since 14:12:40 (40s ago, record 3): as asked, by mlxctl."),
        (evicting, "Being evicted since 14:12:40 (40s ago, record 3): as asked, for mlxctl."),
    ):
        explanation = told([*LOADED, (40, PERSON, (started,))], slot(state="draining"))
        assert explanation.headline == "a is leaving memory."
        assert explanation.sentences()[-1] == told_as


def test_an_eviction_that_was_given_up_is_none() -> None:
    started = m.UnloadStarted(worker="w1", model="a", reason="ttl")
    given_up = m.UnloadAbandoned(worker="w1", model="a", running=1)
    exited = m.WorkerExited(worker="w1", model="a", expected=False, signal=9, running=1)
    steps: list[Step] = [*LOADED, (60, TIMER, (started, given_up)), (20, TIMER, (exited,))]
    explanation = told(steps)

    assert explanation.headline == "a is not in memory: its worker ended unexpectedly."
    assert explanation.sentences()[0] == (
        "At 14:13:00 (20s ago, record 4) worker w1 was killed by signal 9; 1 request failed."
    )
    assert "1 crash in the log, 1 of them in the last 10 minutes" in explanation.sentences()[2]


def test_quarantined_says_how_to_get_out() -> None:
    crashed = m.LoadFailed(worker="w1", model="a", reason="crashed", message="signal 6")
    banned = m.ModelQuarantined(key="/a", model="a", failures=5, message="5 crashes in 10 min")
    steps: list[Step] = [(90, BRIDGE, (LOAD,)), (80, TIMER, (crashed, banned))]
    freed = m.ModelUnquarantined(key="/a", model="a")

    explanation = told(steps)
    assert explanation.headline == (
        "a is not in memory and is not tried any more: it failed too often."
    )
    assert explanation.sentences()[-2:] == [
        "Quarantined at 14:12:00 (1m ago, record 2): 5 crashes in 10 min.",
        "When the cause is mended: mlxctl unquarantine a",
    ]
    after = told([*steps, (10, PERSON, (freed,))])
    assert after.headline == "a is not in memory: its last load failed (crashed)."
    assert after.sentences()[-1] == "The next request for it loads it, or: mlxctl load a"


def test_incompatible() -> None:
    failed = m.LoadFailed(worker="w1", model="a", reason="incompatible", message="no vision_config")
    sentences = told([(90, BRIDGE, (LOAD,)), (80, TIMER, (failed,))]).sentences()

    assert sentences[0] == (
        "At 14:12:00 (1m ago, records 1 to 2) it could not be loaded (incompatible): "
        "no vision_config."
    )
    assert sentences[-1] == (
        "It is tried again once its files have changed, or after: mlxctl unquarantine a"
    )


def test_refused_since() -> None:
    refused = m.RequestRefused(
        key="/a", model="a", code="over_budget", client="mlx-bridge", message="needs 40 GB"
    )
    explanation = told([(90, BRIDGE, (refused,))])

    assert explanation.headline == "a was never loaded, as far as the log goes."
    assert (
        "At 14:11:50 (1m ago, record 1) mlxd refused mlx-bridge (over budget): needs 40 GB."
        in explanation.sentences()
    )


def test_never_loaded_tells_what_is_known() -> None:
    bad = known(
        name="a", path="/a", kind="text", weights_bytes=3 * GB, problem="a shard is missing"
    )

    assert told([(90, TIMER, (m.ClockJumped(by_ms=1),))]).sentences() == [
        "The log holds records 1 to 1, since 14:11:50 (1m ago).",
        "It is a text model of 3.00 GB in /a.",
        "The next request for it loads it, or: mlxctl load a",
    ]
    assert told([], on_disk=bad).sentences()[-1] == "Its files rule it out: a shard is missing"
    assert told([], on_disk=None).sentences()[-1] == (
        "No model of that name is on disk now (mlxctl models lists what is)."
    )


def test_a_name_that_was_given_by_hand_and_is_forgotten() -> None:
    assert told(LOADED, on_disk=None).sentences()[-1] == (
        "mlxd knows no model of that name now; from where it was loaded: mlxctl load /a --name a"
    )


def test_files_that_have_gone_bad_under_a_model_in_memory() -> None:
    bad = known(name="a", path="/a", problem="a shard is missing")
    assert (
        "Requests for it are refused, as its files are now: a shard is missing"
        in told(LOADED, slot(), on_disk=bad).sentences()
    )
