"""How a failure looks over HTTP: status, headers, and the error object of each protocol.

Statuses come from the one table in ``daemon.wire.errors``. What only HTTP knows (an unknown
path, a body that is too large, a foreign origin) is an :class:`HttpProblem` with a status of
its own.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon.wire.errors import HANDLING, Code, Fault, MlxdError

_ANTHROPIC_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}

_json: Final = msgspec.json.Encoder()


class HttpProblem(Exception):
    """A request that HTTP itself has to refuse, with the status that says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def refuse(field: str, message: str) -> MlxdError:
    """The 400 that names the parameter at fault."""
    return MlxdError(Code.INVALID_REQUEST, f"{field}: {message}", field=field)


def openai_error(fault: Fault) -> dict[str, Any]:
    """The ``{"error": …}`` object of a typed failure.

    ``type``, ``param`` and ``code`` are the fields that the official SDKs read
    (https://platform.openai.com/docs/guides/error-codes); ``hint`` is ours.
    """
    error: dict[str, Any] = {
        "message": fault.message,
        "type": _kind(HANDLING[fault.code].http_status),
        # A model's files are at fault, of which the request has only named the model.
        "param": "model" if fault.code is Code.INCOMPATIBLE else fault.field,
        "code": openai_code(fault),
    }
    if fault.hint is not None:
        error["hint"] = fault.hint
    return {"error": error}


def anthropic_error(fault: Fault) -> dict[str, Any]:
    """The same as Anthropic says it (https://docs.anthropic.com/en/api/errors)."""
    return _anthropic(HANDLING[fault.code].http_status, fault.message)


def error_body(fault: Fault, *, anthropic: bool = False) -> bytes:
    """The JSON body that reports ``fault``."""
    return _json.encode(anthropic_error(fault) if anthropic else openai_error(fault))


def problem_body(problem: HttpProblem, *, anthropic: bool = False) -> bytes:
    """The JSON body that reports what HTTP refused."""
    if anthropic:
        return _json.encode(_anthropic(problem.status, str(problem)))
    return _json.encode(_problem(problem))


def _problem(problem: HttpProblem) -> dict[str, Any]:
    error = {
        "message": str(problem),
        "type": _kind(problem.status),
        "param": None,
        "code": problem.code,
    }
    return {"error": error}


def unread_body(problem: HttpProblem) -> bytes:
    """The JSON body where the path, and so the protocol, is not known: one that both read."""
    return _json.encode({"type": "error", **_problem(problem)})


def error_headers(fault: Fault) -> dict[str, str]:
    """Headers that tell a client whether and when to try again.

    ``x-should-retry`` and ``retry-after-ms`` are understood by the official SDKs, which else
    retry 408, 409, 429 and every 5xx.
    """
    headers = {"x-should-retry": "true" if HANDLING[fault.code].retryable else "false"}
    if fault.retry_after_ms is not None:
        headers["Retry-After"] = str(max(1, math.ceil(fault.retry_after_ms / 1000)))
        headers["retry-after-ms"] = str(fault.retry_after_ms)
    if fault.code is Code.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def openai_code(fault: Fault) -> str:
    """The stable code of a failure; OpenAI's own where clients look for it."""
    if fault.code is Code.NOT_FOUND and fault.field == "model":
        return "model_not_found"
    if fault.code is Code.UNAUTHORIZED:
        return "invalid_api_key"
    return fault.code.value


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 499 else "server_error"


def _anthropic(status: int, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_KINDS.get(status)
    if kind is None:
        kind = "invalid_request_error" if status < 499 else "api_error"
    return {"type": "error", "error": {"type": kind, "message": message}}
