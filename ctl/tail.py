"""Text logs: the end of a file, what is added to it, and lines as people read them."""

import json
import os
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

from ctl.blocks import Line, Style

LINE_BYTES_MAX: Final = 64_000
_BLOCK: Final = 1 << 16
_MORE_BYTES_MAX: Final = 1 << 22
_STYLES: Final[dict[str, Style]] = {
    "debug": "dim",
    "warning": "warn",
    "error": "bad",
    "critical": "bad",
}


class Tail:
    """The end of a text file, and what is added to it.

    A file that is replaced by a new one of its name, or cut back, is read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0
        self._rest = b""

    def last(self, count: int) -> list[str]:
        """The last ``count`` lines there are, whatever the size of the file."""
        with self._path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            at = self._offset = file.seek(0, os.SEEK_END)
            data = b""
            while at and data.count(b"\n") <= count and len(data) < count * LINE_BYTES_MAX:
                step = min(at, _BLOCK)
                at -= step
                file.seek(at)
                data = file.read(step) + data
        lines = data.decode("utf-8", "replace").splitlines()
        return lines[-count:] if count else []

    def more(self) -> list[str]:
        """Whole lines that were added since; a file that is gone has none."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._offset:
                    self._inode, self._offset, self._rest = found.st_ino, 0, b""
                file.seek(self._offset)
                data = file.read(_MORE_BYTES_MAX)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def log_line(line: str, zone: tzinfo | None = None) -> Line:
    """A line as people read it: time, what happened, the facts; ``zone`` None is local."""
    shape = as_object(line)
    if shape is None or "event" not in shape:
        return Line(line)
    level = str(shape.pop("level", ""))
    said = str(shape.pop("event"))
    at = _clock(shape.pop("timestamp", None), zone)
    facts = " ".join(f"{name}={_fact(value)}" for name, value in shape.items())
    words = (at, level if level in _STYLES else "", said, facts)
    return Line("  ".join(word for word in words if word), _STYLES.get(level, "plain"))


def as_object(line: str) -> dict[str, Any] | None:
    """The JSON object that a line is, or None: programs also say other things."""
    try:
        shape = json.loads(line)
    except ValueError:
        return None
    return shape if isinstance(shape, dict) else None


def _clock(timestamp: object, zone: tzinfo | None) -> str:
    try:
        at = datetime.fromisoformat(str(timestamp)).astimezone(zone)
    except ValueError:
        return ""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _fact(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if " " in text and isinstance(value, str) else text
