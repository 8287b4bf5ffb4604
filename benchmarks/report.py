"""``python -m benchmarks.report FILE...``: put figures into docs/performance.md.

Each file is what ``python -m benchmarks --json`` printed. In the document every topic has a
block between two comments, which is written anew; topics that were not measured keep theirs.
"""

import re
import sys
from pathlib import Path

import msgspec

from benchmarks.figures import Table
from benchmarks.machine import machine_text
from benchmarks.render import cells_of
from benchmarks.results import Results, read_results

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"

_HEAD = ("what", "mlxd", "beside", "theirs", "ratio", "target", "verdict")


class NoBlock(Exception):
    """The document has no place for a topic."""


def with_figures(text: str, results: Results) -> str:
    """``text`` with the blocks of the measured topics written anew.

    Raises:
        NoBlock: One of them has none.
    """
    for table in results.tables:
        begin, end = f"<!-- figures: {table.topic} -->", "<!-- end of figures -->"
        block = f"{begin}\n{_block(table, results)}\n{end}"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, found = pattern.subn(lambda _, new=block: new, text)  # type: ignore[misc]
        if found != 1:
            raise NoBlock(f"the document has {found} blocks that begin with {begin}, not one")
    return text


def _block(table: Table, results: Results) -> str:
    """A topic's figures, and when and on what they were measured."""
    lines = [
        _line(_HEAD),
        _line(["---"] * len(_HEAD)),
        *(_line(cells_of(row)) for row in table.rows),
    ]
    rounds = f"{results.rounds} rounds" if results.rounds > 1 else "one round"
    measured = f"Measured {results.at}, {rounds}{', --quick' if results.quick else ''}"
    notes = [f"- {note[0].upper()}{note[1:]}." for note in _notes(table)]
    machine = machine_text(results.machine).replace("\n", ". ")
    return "\n".join([*lines, "", *notes, *[""] * bool(notes), f"{measured}. {machine}."])


def _notes(table: Table) -> list[str]:
    return [*(f"{row.what}: {row.note}" for row in table.rows if row.note), *table.notes]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def main() -> None:
    """The command line."""
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        sys.exit("usage: python -m benchmarks.report FILE...  (of python -m benchmarks --json)")
    text = DOCUMENT.read_text("utf-8")
    for file in files:
        try:
            text = with_figures(text, read_results(file))
        except (OSError, msgspec.DecodeError, NoBlock) as error:
            sys.exit(f"{file}: {error}")
    DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
