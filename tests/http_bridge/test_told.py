"""Records in words."""

from daemon.wire.records import ModelNames, read_record
from http_bridge.told import told
from tests.ctl.views import LINES


def test_a_record_names_its_model_and_its_cause() -> None:
    names = ModelNames({})
    records = [read_record(line) for line in LINES]
    for record in records:
        names.learn(record)

    spawned = told(records[2], names)

    assert (spawned["seq"], spawned["at_ms"]) == (records[2].seq, records[2].at_ms)
    (event,) = spawned["events"]
    assert event["type"] == "worker.spawned"
    assert event["model"] == "mlxd/glimpse"
    assert event["text"].startswith("worker w1 runs as pid ")
    assert told(records[1], names)["cause"] == "mlxctl load"
