"""Reading records loosely, naming their models, choosing among them."""

import msgspec
import pytest

from ctl.record import Filter, ModelNames, read_record
from tests.ctl.views import LINES


def test_a_record_is_read_with_what_people_need() -> None:
    record = read_record(LINES[1])

    assert (record.seq, record.at_ms, record.cause["client"]) == (2, 1_790_000_001_000, "mlxctl")
    assert record.events[0]["type"] == "load.started"


def test_no_record() -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_record('{"seq":"two"}')


def test_names_come_from_the_event_or_from_its_worker() -> None:
    names = ModelNames({"w0": "old"})
    for line in LINES:
        names.learn(read_record(line))

    assert names.name({"type": "load.ready", "model": "direct"}) == "direct"
    assert names.name({"type": "worker.spawned", "worker": "w1"}) == "mlxd/glimpse"
    assert names.name({"type": "worker.spawned", "worker": "w0"}) == "old"
    assert names.name({"type": "daemon.started"}) == ""


@pytest.mark.parametrize(
    ("wanted", "seqs"),
    [
        (Filter(), [1, 2, 3, 4]),
        (Filter(type="load.*"), [2, 4]),
        (Filter(type="load.ready"), [4]),
        (Filter(model="mlxd/glimpse"), [2, 3, 4]),
        (Filter(model="mlxd/*", type="worker.*"), [3]),
        (Filter(model="other"), []),
    ],
)
def test_filters(wanted: Filter, seqs: list[int]) -> None:
    names, found = ModelNames({}), []
    for record in map(read_record, LINES):
        names.learn(record)
        if wanted.events(record, names):
            found.append(record.seq)

    assert found == seqs
