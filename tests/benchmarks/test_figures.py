"""Medians, percentiles, ratios and verdicts, worked out by hand."""

import pytest

from benchmarks.figures import Rounds, Row, Spread, Target, percentile, ratios, spread


def test_a_spread_is_the_median_between_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0, 2)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (95, 95), (99, 99), (100, 100), (0.5, 1)]
)
def test_percentiles_of_a_hundred_are_ranks(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_a_high_percentile_of_few_samples_is_the_greatest() -> None:
    assert percentile([5.0, 9.0, 7.0], 99) == 9.0
    assert percentile([5.0], 50) == 5.0


def test_ratios_compare_each_round_with_itself() -> None:
    # The machine slowed down threefold in the second round: the ratio does not see it.
    assert ratios([90.0, 30.0, 80.0], [100.0, 30.0, 100.0]) == Spread(0.9, 0.8, 1.0, 3)


def test_ratios_need_both_sides() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_the_verdict_is_about_the_median_of_what_the_target_names() -> None:
    rounds = Rounds()
    for ours, theirs in ((90.0, 100.0), (98.0, 100.0), (99.0, 100.0)):
        rounds.add("ours", ours)
        rounds.add("theirs", theirs)
    names = ("ours", "theirs")
    assert rounds.beside("a", "tok/s", names, "b", Target(at_least=0.98)).verdict == "OK"
    assert rounds.beside("a", "tok/s", names, "b", Target(at_least=0.99)).verdict == "short"
    assert rounds.beside("a", "tok/s", names, "b").verdict is None
    assert rounds.alone("a", "ms", "ours", at_most=98).verdict == "OK"
    assert rounds.alone("a", "ms", "ours", at_most=97).verdict == "short"


def test_a_target_for_a_ratio_needs_one() -> None:
    row = Row(what="a", unit="ms", ours=spread([1.0]), target=Target(at_most=1))
    with pytest.raises(AssertionError, match="a ratio that is not there"):
        _ = row.verdict
