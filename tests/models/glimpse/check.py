"""Measures the exported model on golden prompts and held-out pictures, through real mlx-vlm.

    python -m tests.models.glimpse.check [--quick] [--json] [--seed N] [FOLDER]

Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.models.glimpse import cases
from tests.models.glimpse.asking import Asker, user
from tests.models.glimpse.cases import Case, Measure

BUNDLED = Path(__file__).parents[3] / "daemon" / "models" / "glimpse"
SECONDS_MAX = 2.0  # median answer about one picture of 256 px
MISSES_SHOWN = 4


@dataclass
class Tally:
    """What was found for one measure."""

    right: int = 0
    asked: int = 0
    misses: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Right answers per question asked."""
        return self.right / self.asked if self.asked else 0.0


@dataclass
class Findings:
    """Everything that was measured."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # answers about one picture
    unended: int = 0  # answers cut off by the token limit

    def missed(self, measure: Measure) -> bool:
        """Whether a measure that was taken falls short of its target."""
        tally = self.tallies.get(measure.name)
        return tally is not None and measure.target is not None and tally.share < measure.target

    @property
    def median_seconds(self) -> float:
        """Median time of an answer about one picture."""
        return statistics.median(self.seconds)

    @property
    def passed(self) -> bool:
        """Whether every target is met, the answers end by themselves and come in time."""
        short = any(self.missed(measure) for measure in cases.MEASURES)
        return not short and not self.unended and self.median_seconds < SECONDS_MAX


def measure(asker: Asker, asked: Iterable[Case], *, verbose: bool) -> Findings:
    """Ask every case; a prompt with the same pictures is asked once."""
    findings = Findings()
    last: tuple[Any, Any] | None = None
    for case in asked:
        question = (case.messages, case.images)
        if last is None or last[0] != question:
            last = (question, asker.ask(case.messages, case.images))
            findings.unended += not last[1].ended
            if len(case.images) == 1:
                findings.seconds.append(last[1].seconds)
        answer = last[1].text
        tally = findings.tallies.setdefault(case.measure, Tally())
        tally.asked += 1
        if case.right(answer):
            tally.right += 1
        else:
            tally.misses.append(f"{case.expected!r} -> {answer!r}")
            if verbose:
                print(f"  miss: {case.measure}: {tally.misses[-1]}", file=sys.stderr, flush=True)
    return findings


def table(findings: Findings) -> str:
    """The figures as a Markdown table, then what went wrong."""
    lines = ["| measure | right | share | target |", "|---|---|---|---|"]
    for row in cases.MEASURES:
        if tally := findings.tallies.get(row.name):
            target = "" if row.target is None else f"{row.target:.0%}"
            flag = " MISSED" if findings.missed(row) else ""
            counts = f"{tally.right}/{tally.asked}"
            lines.append(f"| {row.name} | {counts} | {tally.share:.1%} | {target}{flag} |")
    slowest = statistics.quantiles(findings.seconds, n=10)[-1]
    lines.append("")
    lines.append(
        f"answer about one 256 px picture: median {findings.median_seconds:.2f} s, "
        f"90 % within {slowest:.2f} s; answers that did not end: {findings.unended}"
    )
    for name, tally in findings.tallies.items():
        lines += [f"  {name}: {miss}" for miss in tally.misses[:MISSES_SHOWN]]
    return "\n".join(lines)


def as_json(findings: Findings) -> str:
    """The same figures for machines."""
    rows = {
        row.name: {
            "right": tally.right,
            "asked": tally.asked,
            "target": row.target,
            "misses": tally.misses,
        }
        for row in cases.MEASURES
        if (tally := findings.tallies.get(row.name))
    }
    content = {
        "passed": findings.passed,
        "measures": rows,
        "median_seconds": round(findings.median_seconds, 3),
        "unended_answers": findings.unended,
    }
    return json.dumps(content, indent=2)


def main() -> int:
    """Measure, print, and say whether every target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--quick", action="store_true", help="golden prompts and controls only")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=1, help="which held-out pictures are drawn")
    parser.add_argument("--verbose", action="store_true", help="print every miss as it happens")
    options = parser.parse_args()
    asker = Asker(options.folder)
    asker.ask([user("Hello!")])  # the first answer pays for compilation
    asked = cases.quick() if options.quick else cases.full(options.seed)
    findings = measure(asker, asked, verbose=options.verbose)
    print(as_json(findings) if options.json else table(findings))
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(main())
