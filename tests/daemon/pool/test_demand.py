"""Demand read back from events."""

from daemon.pool import messages as m
from daemon.pool.demand import Demand, DemandReader, Load, Subject

MODEL = m.Model(
    key="/a",
    name="a",
    path="/a",
    kind="text",
    capabilities=("text",),
    weights_bytes=1,
    kv_token_bytes=0,
    context_tokens=8192,
)
TIMER = m.Cause(command="tick")


def load(worker: str, reason: m.LoadReason) -> m.LoadStarted:
    return m.LoadStarted(
        model=MODEL,
        worker=worker,
        claim_bytes=1,
        kv_tokens=1,
        rows_max=3,
        reason=reason,
        asked_by=(),
        ttl_ms=5_000,
    )


def ready(worker: str) -> m.LoadReady:
    return m.LoadReady(worker=worker, model="a", measured_bytes=9, load_ms=300, context_tokens=1)


def usage(*arrivals: tuple[int, int], key: str = "/a", dropped: int = 0) -> m.UsageRecorded:
    return m.UsageRecorded(
        key=key,
        model="a",
        window_ms=60_000,
        requests=len(arrivals),
        prompt_tokens=0,
        completion_tokens=0,
        busy_ms=0,
        arrivals=arrivals,
        arrivals_dropped=dropped,
    )


def started(boot_id: str) -> m.DaemonStarted:
    return m.DaemonStarted(
        generation=1,
        pid=1,
        boot_id=boot_id,
        version="1",
        budget_bytes=7,
        memory_total_bytes=9,
    )


def read(*steps: tuple[int, m.DurableEvent], cause: m.Cause = TIMER) -> DemandReader:
    reader = DemandReader()
    for at_ms, event in steps:
        reader.take(at_ms, cause, (event,))
    return reader


def use(at_ms: int, hold_ms: int) -> Demand:
    return Demand(at_ms=at_ms, kind="use", key="/a", hold_ms=hold_ms)


def test_the_first_request_came_when_its_load_began() -> None:
    reader = read(
        (100_000, load("w1", "acquire")),
        (100_800, ready("w1")),
        (160_800, usage((100, 2_000), (30_000, 500))),
    )

    assert reader.finish() == [use(100_000, 2_000), use(130_800, 500)]
    (loaded,) = reader.subjects["/a"].loads
    assert (loaded.spawn_ms, loaded.load_ms, loaded.measured_bytes) == (500, 300, 9)
    assert loaded.option.terms == m.Terms(ttl_ms=5_000, rows_max=3)


def test_each_time_has_the_load_before_it() -> None:
    option = m.Option(model=MODEL)
    subject = Subject(
        Load(at_ms=100, option=option, load_ms=7),
        Load(at_ms=200, option=m.Option(model=MODEL, terms=m.Terms(ttl_ms=1)), load_ms=9),
        Load(at_ms=300, option=option),
    )
    found = [subject.load_at(at_ms) for at_ms in (0, 100, 199, 200, 999)]

    assert [load and load.load_ms for load in found] == [7, 7, 7, 9, 9]
    assert [subject.option_at(t).terms.ttl_ms for t in (0, 199, 200, 300)] == [None, None, 1, None]
    assert Subject(Load(at_ms=0, option=option)).load_at(5) is None


def test_a_load_whose_request_left_is_still_demand() -> None:
    gone = m.WorkerExited(worker="w1", model="a", expected=True)
    ended = read((100, load("w1", "acquire")), (900, gone), (1_000, load("w2", "acquire")))

    assert ended.finish() == [use(100, 0), use(1_000, 0)]


def test_loads_that_people_and_the_daemon_asked_for() -> None:
    reader = read((1, load("w1", "load")), (2, load("w2", "preload")), (3, load("w3", "restore")))

    assert [(d.at_ms, d.kind) for d in reader.finish()] == [(1, "load"), (2, "wish"), (3, "wish")]


def test_what_people_took_away() -> None:
    reader = read(
        (1, load("w1", "load")),
        (2, m.EvictStarted(
            worker="w1", model="a", reason="request", wanted="", needed_bytes=0, rule="",
            candidates=(),
        )),
        (5, m.WorkerExited(worker="w1", model="a", expected=True)),
        (6, load("w2", "load")),
        (7, m.UnloadStarted(worker="w2", model="a", reason="request")),
        (9, m.WorkerExited(worker="w2", model="a", expected=True)),
        (10, load("w3", "load")),
        (11, m.UnloadStarted(worker="w3", model="a", reason="ttl")),
    )  # fmt: skip

    assert [d.kind for d in reader.finish()] == ["load", "evict", "load", "unload", "load"]
    assert reader.exit_ms == [3, 2]


def test_starts_and_stops() -> None:
    first = read((1, started("b1")), (2, started("b1")), (3, started("b2")))
    stopped = m.DaemonStopped(generation=1, reason="")
    ends = read((1, stopped)), read((1, stopped), cause=m.Cause(command="detach"))

    assert [(d.at_ms, d.kind) for d in first.finish()] == [
        *((1, "limits"), (2, "limits"), (3, "down"), (3, "limits")),
    ]
    assert first.finish()[0].limits == m.Limits(budget_bytes=7)
    assert [[d.kind for d in reader.finish()] for reader in ends] == [["down"], []]


def test_what_cannot_be_simulated_is_counted() -> None:
    reader = read((1, load("w1", "load")), (2, usage(dropped=3)), (3, usage((1, 1), key="/other")))

    assert (reader.dropped, reader.strangers) == (3, 1)
