"""One way to log for all three programs: structlog on standard error.

The stream is a convenience, so that it may fail: a full disk or a reader that has gone
must not end the program that had something to say.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO

import structlog


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


def set_up_logging(level: str = "INFO", **always: str) -> None:
    """Readable lines on a terminal, JSON lines elsewhere.

    Args:
        level: The least severe level that is said.
        always: Keys that every line carries.
    """
    watched = sys.stderr.isatty()
    stream: Any = Unfailing(sys.stderr)
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
    logging.basicConfig(level=logging.WARNING, stream=stream)
