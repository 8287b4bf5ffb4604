"""What ``mlxctl doctor`` finds: checks with a verdict and the fix, for people and as JSON. Pure."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from ctl.blocks import Block, Cell, Column, Line, Page, Style, Table
from daemon.wire.units import counted

Verdict = Literal["ok", "warning", "bad", "skipped"]
_STYLE: Final[dict[Verdict, Style]] = {
    "ok": "good",
    "warning": "warn",
    "bad": "bad",
    "skipped": "dim",
}
_COLUMNS: Final = (Column("", width=7), Column("", width=12), Column("", grow=True))


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at.

    Attributes:
        said: What is so, in one sentence.
        fix: What to do about it; None where there is nothing to do.
    """

    name: str
    verdict: Verdict
    said: str
    fix: str | None = None


def check_page(check: Check) -> Page:
    """One finding: pages of several stand under one another."""
    style = _STYLE[check.verdict]
    rows = [(Cell(check.verdict, style), Cell(check.name, "title"), Cell(check.said))]
    if check.fix:
        rows.append((Cell(""), Cell(""), Cell(f"→ {check.fix}", "warn")))
    return (Table(_COLUMNS, rows, header=False),)


def summary_page(checks: Sequence[Check]) -> Page:
    """What all of them come to."""
    bad = sum(check.verdict == "bad" for check in checks)
    warnings = sum(check.verdict == "warning" for check in checks)
    blocks: list[Block] = [Line()]
    if bad:
        broken = counted(bad, "thing is", "things are")
        blocks.append(Line(f"{broken} broken, in {len(checks)} checks.", "bad"))
    elif warnings:
        remarks = counted(warnings, "remark")
        blocks.append(Line(f"It works; {remarks} in {len(checks)} checks.", "warn"))
    else:
        skipped = sum(check.verdict == "skipped" for check in checks)
        rest = f" {skipped} of {len(checks)} checks were skipped." if skipped else ""
        blocks.append(Line(f"All is well.{rest}", "good"))
    return tuple(blocks)


def checks_shape(checks: Sequence[Check]) -> dict[str, Any]:
    """The ``--json`` shape; ``fix`` is null where there is nothing to do."""
    return {
        "v": 1,
        "healthy": healthy(checks),
        "checks": [
            {"name": c.name, "verdict": c.verdict, "said": c.said, "fix": c.fix} for c in checks
        ],
    }


def healthy(checks: Sequence[Check]) -> bool:
    """Whether nothing is broken; warnings are no illness."""
    return not any(check.verdict == "bad" for check in checks)
