"""From samples to figures: medians with their spread, ratios within a round, targets."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """A median and how far the samples lie around it, all in one unit."""

    median: float
    low: float
    high: float
    samples: int


class Target(msgspec.Struct, frozen=True):
    """What a figure is to reach.

    Attributes:
        of: Which of a row's figures is judged.
    """

    at_least: float | None = None
    at_most: float | None = None
    of: Literal["ratio", "ours"] = "ratio"

    def reached(self, value: float) -> bool:
        """Whether ``value`` is on the right side of every bound."""
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a topic's table.

    Attributes:
        what: What was measured.
        unit: Of ``ours`` and ``theirs``.
        ours: This service.
        beside: What ``theirs`` is.
        ratio: ``ours`` divided by ``theirs``, round by round.
        note: Anything a reader must know about this figure.
    """

    what: str
    unit: str
    ours: Spread
    beside: str = ""
    theirs: Spread | None = None
    ratio: Spread | None = None
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> Literal["OK", "short"] | None:
        """Whether the median reaches the target; None where there is none."""
        if self.target is None:
            return None
        judged = self.ours if self.target.of == "ours" else self.ratio
        assert judged is not None, f"{self.what}: a target for a ratio that is not there"
        return "OK" if self.target.reached(judged.median) else "short"


class Table(msgspec.Struct, frozen=True):
    """What a topic found."""

    topic: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def spread(samples: Iterable[float]) -> Spread:
    """The median of ``samples`` with the least and the greatest; there must be one."""
    ordered = sorted(samples)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that ``percent`` of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of ours ÷ theirs, each round with itself.

    Raises:
        ValueError: The sides were not measured equally often.
    """
    return spread(a / b for a, b in zip(ours, theirs, strict=True))


class Rounds:
    """Figures by name, one a round; every topic fills one of these."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self._samples.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._samples

    def of(self, name: str) -> list[float]:
        """The samples of one figure, in order of rounds."""
        return self._samples[name]

    def alone(
        self,
        what: str,
        unit: str,
        name: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        note: str = "",
    ) -> Row:
        """A row about one figure of ours."""
        bounded = at_most is not None or at_least is not None
        target = Target(at_least, at_most, "ours") if bounded else None
        return Row(what=what, unit=unit, ours=spread(self.of(name)), target=target, note=note)

    def beside(
        self,
        what: str,
        unit: str,
        names: tuple[str, str],
        label: str,
        target: Target | None = None,
        note: str = "",
    ) -> Row:
        """A row of two figures, ours and theirs, and their ratio."""
        ours, theirs = (self.of(name) for name in names)
        return Row(
            what=what,
            unit=unit,
            ours=spread(ours),
            beside=label,
            theirs=spread(theirs),
            ratio=ratios(ours, theirs),
            target=target,
            note=note,
        )
