"""The past, folded from records that a test wrote by hand."""

import pytest

from daemon.eventlog.record import Record
from daemon.history import Place, fold, parse_place, view_of
from daemon.pool import messages as m
from daemon.wire.errors import Code, MlxdError

GB = 10**9
T0 = 1_790_000_000_000
MODEL = m.Model(
    key="/a",
    name="a",
    path="/a",
    kind="text",
    capabilities=("text",),
    weights_bytes=3 * GB,
    kv_token_bytes=0,
    context_tokens=8192,
)
STARTED = m.DaemonStarted(
    generation=7,
    pid=812,
    boot_id="b",
    version="0.1.0",
    budget_bytes=10 * GB,
    memory_total_bytes=32 * GB,
)
LOAD = m.LoadStarted(
    model=MODEL,
    worker="w1",
    claim_bytes=4 * GB,
    kv_tokens=1,
    rows_max=1,
    reason="load",
    asked_by=("mlxctl",),
    ttl_ms=60_000,
)
READY = m.LoadReady(worker="w1", model="a", measured_bytes=3 * GB, load_ms=900, context_tokens=4096)
GOING = m.UnloadStarted(worker="w1", model="a", reason="ttl")
GONE = m.WorkerExited(worker="w1", model="a", expected=True, exit_code=0)
STOPPED = m.DaemonStopped(generation=7, reason="SIGTERM")
EVENTS: tuple[m.DurableEvent, ...] = (STARTED, LOAD, READY, GOING, GONE, STOPPED)
RECORDS = [
    Record(seq=n, at_ms=T0 + n * 10_000, cause=m.Cause(command="x"), events=(event,), chain="")
    for n, event in enumerate(EVENTS, 1)
]


@pytest.mark.parametrize(
    ("seq", "state", "committed_bytes"),
    [
        (1, None, 0),
        (2, "loading", 4 * GB),
        (3, "idle", 4 * GB),
        (4, "draining", 4 * GB),
        (5, None, 0),
        (6, None, 0),
    ],
)
def test_after_each_record(seq: int, state: str | None, committed_bytes: int) -> None:
    place = Place(seq=seq)
    view = view_of(fold(RECORDS, place), place, "/home")

    assert [model.state for model in view.models] == ([state] if state else [])
    assert view.committed_bytes == committed_bytes
    assert (view.seq, view.now_ms) == (seq, T0 + seq * 10_000)
    assert (view.pid, view.version, view.budget_bytes) == (812, "0.1.0", 10 * GB)
    assert view.started_at_ms == T0 + 10_000
    assert view.warnings == (("mlxd was not running then",) if seq == 6 else ())


@pytest.mark.parametrize(
    ("after_ms", "seq"), [(10_000, 1), (29_999, 2), (30_000, 3), (10_000_000, 6)]
)
def test_at_a_moment(after_ms: int, seq: int) -> None:
    place = Place(at_ms=T0 + after_ms)
    view = view_of(fold(RECORDS, place), place, "/home")

    assert (view.seq, view.now_ms) == (seq, T0 + after_ms)


def test_what_had_a_ttl_says_when_it_would_have_gone() -> None:
    place = Place(seq=3)
    (model,) = view_of(fold(RECORDS, place), place, "/home").models

    assert model.expires_at_ms == T0 + 90_000


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place(seq=7), "holds records 1 to 6, and not 7"),
        (Place(seq=0), "records begin with 1"),
        (Place(at_ms=T0), "begins later than that"),
    ],
)
def test_where_the_log_does_not_reach(place: Place, said: str) -> None:
    with pytest.raises(MlxdError) as caught:
        fold(RECORDS, place)
    assert caught.value.code is Code.NOT_FOUND
    assert said in str(caught.value)


def test_an_empty_log() -> None:
    with pytest.raises(MlxdError, match="the event log is empty"):
        fold([], Place(at_ms=T0))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("17", Place(seq=17)),
        ("2h", Place(at_ms=T0 - 7_200_000)),
        (str(T0), Place(at_ms=T0)),
        ("2026-09-21T14:13:20Z", Place(at_ms=T0)),
    ],
)
def test_places_as_people_write_them(text: str, place: Place) -> None:
    assert parse_place(text, T0) == place


def test_a_moment_that_has_not_come() -> None:
    assert parse_place("2026-09-21T14:13:25Z", T0) == Place(at_ms=T0 + 5_000), "clocks differ"
    for text in ("2026-09-21T14:13:31Z", "2030-01-01", str(T0 + 3_600_000)):
        with pytest.raises(MlxdError, match=f"'{text}' has not come yet") as caught:
            parse_place(text, T0)
        assert caught.value.code is Code.NOT_FOUND


def test_what_is_no_place() -> None:
    with pytest.raises(MlxdError, match=r"'1e3' is not a moment; .* or the number of a record"):
        parse_place("1e3", T0)
