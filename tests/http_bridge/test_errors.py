"""Every code over HTTP: status, retry headers and the error object."""

import msgspec
import pytest

from daemon.wire.errors import Code, Fault
from http_bridge.errors import (
    HttpProblem,
    anthropic_error,
    error_headers,
    openai_error,
    problem_body,
)

RETRY_HELPS = {
    Code.QUEUE_FULL,
    Code.BUSY,
    Code.DEADLINE,
    Code.SHUTTING_DOWN,
    Code.READ_ONLY,
    Code.WORKER_FAILED,
    Code.LAGGED,
    Code.NO_DAEMON,
}


def test_a_fault_in_a_model_s_files_is_one_of_the_parameter_model() -> None:
    fault = Fault(code=Code.INCOMPATIBLE, message="x", field="model.safetensors")
    assert openai_error(fault)["error"]["param"] == "model"


@pytest.mark.parametrize("code", list(Code))
def test_sdks_are_told_whether_to_retry(code: Code) -> None:
    headers = error_headers(Fault(code=code, message="x"))
    assert headers["x-should-retry"] == ("true" if code in RETRY_HELPS else "false")


def test_retry_after_rounds_up() -> None:
    headers = error_headers(Fault(code=Code.BUSY, message="x", retry_after_ms=1001))
    assert headers["Retry-After"] == "2"
    assert headers["retry-after-ms"] == "1001"
    assert error_headers(Fault(code=Code.BUSY, message="x", retry_after_ms=0))["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault(code=Code.NOT_FOUND, message="x", field="model"), "invalid", "model_not_found"),
        (Fault(code=Code.NOT_FOUND, message="x"), "invalid", "not_found"),
        (Fault(code=Code.UNAUTHORIZED, message="x"), "invalid", "invalid_api_key"),
        (Fault(code=Code.OVER_BUDGET, message="x"), "invalid", "over_budget"),
        (Fault(code=Code.QUEUE_FULL, message="x"), "rate", "queue_full"),
        (Fault(code=Code.WORKER_FAILED, message="x"), "server", "worker_failed"),
        (Fault(code=Code.CANCELLED, message="x"), "server", "cancelled"),
    ],
)
def test_types_and_codes(fault: Fault, kind: str, code: str) -> None:
    error = openai_error(fault)["error"]
    names = {
        "invalid": "invalid_request_error",
        "rate": "rate_limit_error",
        "server": "server_error",
    }
    assert (error["type"], error["code"]) == (names[kind], code)


def test_the_hint_and_the_parameter_are_told() -> None:
    fault = Fault(code=Code.INVALID_REQUEST, message="m", hint="h", field="n")
    assert openai_error(fault) == {
        "error": {
            "message": "m",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
            "hint": "h",
        }
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_REQUEST, "invalid_request_error"),
        (Code.UNAUTHORIZED, "authentication_error"),
        (Code.NOT_FOUND, "not_found_error"),
        (Code.OVER_BUDGET, "invalid_request_error"),
        (Code.QUEUE_FULL, "rate_limit_error"),
        (Code.BUSY, "overloaded_error"),
        (Code.NO_DAEMON, "overloaded_error"),
        (Code.WORKER_FAILED, "api_error"),
        (Code.CANCELLED, "api_error"),
        (Code.INTERNAL, "api_error"),
    ],
)
def test_anthropics_types(code: Code, kind: str) -> None:
    """Those of https://docs.anthropic.com/en/api/errors."""
    assert anthropic_error(Fault(code=code, message="x")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, "permission_error"), (413, "request_too_large"), (415, "invalid_request_error")],
)
def test_what_http_refuses_in_both_forms(status: int, kind: str) -> None:
    problem = HttpProblem(status, "x", code="c")
    assert msgspec.json.decode(problem_body(problem, anthropic=True)) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
    }
    assert msgspec.json.decode(problem_body(problem)) == {
        "error": {"message": "x", "type": "invalid_request_error", "param": None, "code": "c"}
    }
