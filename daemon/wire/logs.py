"""One way to log for all three programs: structlog on standard error, or in a small file.

The stream is a convenience, so that it may fail: a full disk or a reader that has gone
must not end the program that had something to say.
"""

import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

FILE_BYTES_MAX: Final = 2 << 20
FILES_KEPT: Final = 3
"""Older files of a log are NAME.1 and up: with them, at most so many times the bound."""

BOOT_LOG_BYTES_MAX: Final = 64 << 10

_RENDERED: Final = "structlog"
"""Whose lines are finished when they come."""


class Unfailing:
    """A text stream whose failures are nobody's business."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class RotatingFile(logging.handlers.RotatingFileHandler):
    """A text log that stays small; as a stream for structlog, too."""

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        super().__init__(
            path, maxBytes=bytes_max, backupCount=FILES_KEPT - 1, encoding="utf-8", delay=True
        )

    def write(self, text: str) -> None:
        line = {"name": _RENDERED, "msg": text.removesuffix("\n")}
        self.handle(logging.makeLogRecord(line))

    def format(self, record: logging.LogRecord) -> str:
        return record.msg if record.name == _RENDERED else super().format(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: see the head of this module."""


def cut_back(path: Path, bytes_max: int, bytes_kept: int) -> None:
    """Leave whole lines at the end of a file that has grown beyond its bound.

    For files that a program cannot rename, since somebody else holds them open: what is
    written at that very moment may be lost.

    Raises:
        OSError: It cannot be read or written, or is not there.
    """
    with path.open("r+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes <= bytes_max:
            return
        file.seek(size_bytes - bytes_kept)
        file.readline()
        rest = file.read()
        file.truncate(0)
    with path.open("ab") as file:
        file.write(rest)


def set_up_logging(level: str = "INFO", *, file: Path | None = None, **always: str) -> None:
    """Readable lines on a terminal, JSON lines elsewhere.

    Args:
        level: The least severe level that is said.
        file: Where to write instead of standard error, bounded and rotated; its folder
            must exist.
        always: Keys that every line carries.
    """
    watched = file is None and sys.stderr.isatty()
    rotating = RotatingFile(file) if file is not None else None
    stream: Any = rotating or Unfailing(sys.stderr)
    last: list[structlog.typing.Processor] = (
        [structlog.dev.set_exc_info, structlog.dev.ConsoleRenderer()]
        if watched
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )

    def named(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Any:
        return {**always, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            named,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = rotating or logging.StreamHandler(stream)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def announce(line: bytes) -> None:
    """Say on standard output that this program serves, to whoever started it and waits.

    A service's goes into a file, and a program that serves does not end for want of room there.
    """
    if sys.stdout is not None:  # closed by whoever started it: the descriptor is another's
        with suppress(OSError):
            os.write(1, line + b"\n")


def boot_log(log: Path) -> Path:
    """Where a service's standard output and error go: what it says when ``log`` is silent."""
    return log.with_suffix(".boot.log")


def set_up_program_logging(log: Path, *, serviced: bool) -> None:
    """Log to standard error, or to ``log`` where a service manager runs this program."""
    if not serviced:
        set_up_logging()
        return
    with suppress(OSError):  # there is none, or nobody may write to it: not worth a failure
        cut_back(boot_log(log), BOOT_LOG_BYTES_MAX, BOOT_LOG_BYTES_MAX // 2)
    set_up_logging(file=log)
