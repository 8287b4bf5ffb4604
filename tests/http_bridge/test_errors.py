"""Every code over HTTP: status, retry headers and the error object."""

import pytest

from daemon.wire.errors import Code, Fault
from http_bridge.errors import error_headers, openai_error

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


def test_a_workers_field_is_named_as_the_client_knows_it() -> None:
    fault = Fault(code=Code.INVALID_REQUEST, message="x", field="template_kwargs")
    assert openai_error(fault)["error"]["param"] == "chat_template_kwargs"


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
