"""The main thread of a worker: it owns the model, and every decision about requests.

A plain loop: take what the inbox has, step the engine while it has work, wait without
polling while it has not. Whatever a turn of the loop gave goes out as one post.
"""

import time
from collections.abc import Callable
from typing import Final, Literal

import structlog

from daemon.wire.data import (
    Accepted,
    Begin,
    Bye,
    DataAnswer,
    Drain,
    Drained,
    Fail,
    Hosting,
    LinkReport,
    LoadFailed,
    LoadProgress,
    Measured,
    Ready,
    Retire,
    Running,
    StillBusy,
    Usage,
    UsageReport,
)
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.worker.engines.base import Emission, Engine, LoadCancelled, LoadRefused, Registry
from daemon.worker.inbox import (
    Cancel,
    Command,
    Inbox,
    LinkDown,
    LinkUp,
    Message,
    Outlet,
    Post,
    Submit,
    Terminate,
)

log = structlog.get_logger()

BEGIN_TIMEOUT_S: Final = 60.0
"""A worker that is not told what to load ends itself after this."""

PROGRESS_INTERVAL_S: Final = 0.1
MEASURED_CHANGE_BYTES: Final = 64 << 20
MEASURED_CHANGE_SHARE: Final = 0.05

Phase = Literal["waiting", "loading", "ready", "draining"]


class _Request:
    """Accepted and not yet ended."""

    def __init__(self, lease: str, accepted_at_ms: int, accepted_s: float) -> None:
        self.lease = lease
        self.accepted_at_ms = accepted_at_ms
        self.accepted_s = accepted_s
        self.usage: Usage | None = None
