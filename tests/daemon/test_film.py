"""The pool after each of many records, from records that a test wrote by hand."""

import pytest

from daemon.film import film
from tests.daemon.test_history import GB, RECORDS, T0


def test_each_record_comes_with_the_pool_after_it() -> None:
    stills = list(film(RECORDS, 0, 6))

    assert [still.seq for still in stills] == [1, 2, 3, 4, 5, 6]
    assert [[model.state for model in still.models] for still in stills] == [
        [],
        ["loading"],
        ["idle"],
        ["draining"],
        [],
        [],
    ]
    assert [still.committed_bytes for still in stills] == [0, 4 * GB, 4 * GB, 4 * GB, 0, 0]
    ready = stills[2].models[0]
    assert (ready.name, ready.worker, ready.measured_bytes, ready.pinned) == (
        "a",
        "w1",
        3 * GB,
        False,
    )
    assert (stills[2].at_ms, stills[2].budget_bytes) == (T0 + 30_000, 10 * GB)


@pytest.mark.parametrize(
    ("after", "until", "seqs"),
    [(0, 2, [1, 2]), (3, 5, [4, 5]), (5, 99, [6]), (6, 99, []), (3, 2, [])],
)
def test_only_what_was_asked_for(after: int, until: int, seqs: list[int]) -> None:
    assert [still.seq for still in film(RECORDS, after, until)] == seqs
