"""Answers as JSON for people's scripts: what ``--json`` and HTTP show of them.

A field is only ever added within a version.
"""

from typing import Any, Final

import msgspec

from daemon.wire.control import Answer

VERSION: Final = 1


def fields(answer: Answer) -> dict[str, Any]:
    """All of an answer but how it finds its request on the wire."""
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return {name: value for name, value in found.items() if name not in {"type", "id"}}


def versioned(answer: Answer) -> dict[str, Any]:
    """The same, saying of which version it is."""
    return {"v": VERSION, **fields(answer)}
