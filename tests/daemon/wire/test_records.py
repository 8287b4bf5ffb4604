"""Reading records loosely, and naming their models."""

import msgspec
import pytest

from daemon.wire.records import ModelNames, read_record
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
