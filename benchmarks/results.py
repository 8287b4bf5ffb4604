"""What a run of the bench found, as ``--json`` prints it and ``report`` reads it."""

import json
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Table
from benchmarks.machine import Machine


class Results(msgspec.Struct, frozen=True):
    """One run."""

    v: int
    at: str
    quick: bool
    rounds: int
    machine: Machine
    tables: tuple[Table, ...]


def document(results: Results) -> dict[str, Any]:
    """What ``--json`` prints: everything, and each row's verdict."""
    content: dict[str, Any] = msgspec.to_builtins(results)
    for table, found in zip(content["tables"], results.tables, strict=True):
        for row, source in zip(table["rows"], found.rows, strict=True):
            row["verdict"] = source.verdict
    return content


def document_text(results: Results) -> str:
    """The same as text."""
    return json.dumps(document(results), indent=2)


def read_results(file: Path) -> Results:
    """What ``--json`` printed into ``file``.

    Raises:
        msgspec.DecodeError: It holds something else.
    """
    return msgspec.json.decode(file.read_bytes(), type=Results)
