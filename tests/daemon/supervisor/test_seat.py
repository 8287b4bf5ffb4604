"""Speeds worked out by hand; a seat's usage is shown by ``test_supervisor.py``."""

import pytest

from daemon.supervisor.residue import Wiring
from daemon.supervisor.seat import OUTBOX_MAX, Seat, Speed
from daemon.wire.data import Retire, Trim, Written


def test_speed_is_that_of_the_last_ten_seconds_of_writing() -> None:
    speed = Speed()
    assert speed.add(Written(tokens=100, writing_ms=1_000)) == pytest.approx(100.0)
    assert speed.add(Written(tokens=300, writing_ms=3_000)) == pytest.approx(100.0)
    for second in range(4, 20):
        per_s = speed.add(Written(tokens=300 + 20 * (second - 3), writing_ms=1_000 * second))
    assert per_s == pytest.approx(20.0)


def test_a_worker_that_was_busy_for_long_before_it_was_adopted() -> None:
    speed = Speed()
    assert speed.add(Written(tokens=90_000, writing_ms=3_000_000)) == pytest.approx(30.0)
    assert speed.add(Written(tokens=90_050, writing_ms=3_001_000)) == pytest.approx(50.0)


def test_nothing_written_is_no_speed() -> None:
    assert Speed().add(Written(tokens=0, writing_ms=0)) == 0.0


def test_a_worker_that_hangs_is_told_once_that_memory_is_short() -> None:
    """It may be so for days: what it must hear has room in its outbox all the same."""
    seat = Seat("w1", Wiring())
    for _ in range(OUTBOX_MAX + 1):
        seat.tell(Trim())
    seat.tell(Retire(reason="test"))
    assert seat.outbox.receive_nowait() == Trim()
    assert seat.outbox.receive_nowait() == Retire(reason="test")
    seat.close()
