"""Errors: a closed set of stable codes, each with one HTTP status and one exit code.

Every failure that crosses a socket is an :class:`MlxdError`. Its code says what the
caller can do next, its message ends in the next step, and the one table below gives
the HTTP status and the exit code, so that the three programs can never disagree.
"""

from enum import StrEnum
from typing import Final

import msgspec


class Code(StrEnum):
    """Stable error codes: part of the protocol, never renamed."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    INCOMPATIBLE = "incompatible"
    OVER_BUDGET = "over_budget"
    QUARANTINED = "quarantined"
    CONFLICT = "conflict"
    QUEUE_FULL = "queue_full"
    BUSY = "busy"
    DEADLINE = "deadline"
    SHUTTING_DOWN = "shutting_down"
    READ_ONLY = "read_only"
    WORKER_FAILED = "worker_failed"
    CANCELLED = "cancelled"
    LAGGED = "lagged"
    PROTOCOL_MISMATCH = "protocol_mismatch"
    INTERNAL = "internal"
    NO_DAEMON = "no_daemon"


class Handling(msgspec.Struct, frozen=True):
    """What each surface makes of one code."""

    http_status: int
    exit_code: int
    retryable: bool


HANDLING: Final[dict[Code, Handling]] = {
    Code.INVALID_REQUEST: Handling(400, 2, False),
    Code.UNAUTHORIZED: Handling(401, 3, False),
    Code.NOT_FOUND: Handling(404, 4, False),
    Code.INCOMPATIBLE: Handling(422, 5, False),
    Code.OVER_BUDGET: Handling(422, 5, False),
    Code.QUARANTINED: Handling(422, 5, False),
    Code.CONFLICT: Handling(409, 6, False),
    Code.QUEUE_FULL: Handling(429, 75, True),
    Code.BUSY: Handling(503, 75, True),
    Code.DEADLINE: Handling(503, 75, True),
    Code.SHUTTING_DOWN: Handling(503, 75, True),
    Code.READ_ONLY: Handling(503, 75, True),
    Code.WORKER_FAILED: Handling(502, 7, True),
    Code.CANCELLED: Handling(499, 130, False),
    Code.LAGGED: Handling(500, 1, True),
    Code.PROTOCOL_MISMATCH: Handling(500, 1, False),
    Code.INTERNAL: Handling(500, 1, False),
    Code.NO_DAEMON: Handling(503, 69, True),
}


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it travels on a socket.

    Attributes:
        code: What kind of failure, see :class:`Code`.
        message: One sentence for people; it ends in the next step where there is one.
        hint: The next step on its own, for surfaces that show it apart.
        field: The request field, file or configuration key at fault.
        retry_after_ms: When a retry can succeed, from learned load times.
    """

    code: Code
    message: str
    hint: str | None = None
    field: str | None = None
    retry_after_ms: int | None = None


class MlxdError(Exception):
    """A typed failure: everything a surface needs to report it well."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = Fault(
            code=code, message=message, hint=hint, field=field, retry_after_ms=retry_after_ms
        )

    @classmethod
    def of(cls, fault: Fault) -> "MlxdError":
        """The exception for a fault that arrived on a socket."""
        error = cls(fault.code, fault.message)
        error.fault = fault
        return error

    @property
    def code(self) -> Code:
        return self.fault.code

    @property
    def handling(self) -> Handling:
        return HANDLING[self.fault.code]
