"""Choosing among events."""

import pytest

from ctl.filter import Filter
from daemon.wire.records import ModelNames, read_record
from tests.ctl.views import LINES


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
