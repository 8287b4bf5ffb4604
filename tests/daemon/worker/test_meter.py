"""Tokens counted by hand, beside what the meter says."""

from daemon.wire.data import Delta, Done, Usage, Written
from daemon.worker.engines.base import Emission
from daemon.worker.meter import Meter


def step(number: int, tokens: int) -> Emission:
    return Emission(number, (Delta(text="x", tokens=tokens),))


def end(number: int, tokens: int) -> Emission:
    usage = Usage(prompt_tokens=1, completion_tokens=tokens)
    return Emission(number, (Done(finish_reason="stop", usage=usage),), usage)


def test_tokens_of_all_requests_and_the_time_of_the_steps_that_gave_any() -> None:
    meter = Meter()
    meter.count([], 5.0)  # a piece of a prompt
    meter.count([step(1, 1), step(2, 2)], 0.1)
    meter.count([step(1, 2)], 0.2)
    meter.count([step(2, 2)], 7.0)  # a frame without a new token

    assert meter.report(10.0, idle=False) == Written(tokens=4, writing_ms=300)


def test_an_ended_request_keeps_its_tokens_as_the_engine_counted_them() -> None:
    meter = Meter()
    meter.count([step(1, 3), step(2, 5)], 0.1)
    meter.count([end(1, 4)], 0.1)
    meter.ended(2, None)  # cancelled, and nobody knows better

    assert meter.report(10.0, idle=True) == Written(tokens=9, writing_ms=200)


def test_at_most_once_a_second_the_last_word_at_once_and_nothing_while_idle() -> None:
    meter = Meter()
    assert meter.report(100.0, idle=True) is None
    meter.count([step(1, 1)], 0.1)
    assert meter.report(100.0, idle=False) == Written(tokens=1, writing_ms=100)
    meter.count([step(1, 2)], 0.1)
    assert meter.report(100.9, idle=False) is None
    assert meter.report(101.0, idle=False) == Written(tokens=2, writing_ms=200)
    meter.count([end(1, 3)], 0.1)
    assert meter.report(101.1, idle=True) == Written(tokens=3, writing_ms=300)
    assert meter.report(500.0, idle=True) is None
