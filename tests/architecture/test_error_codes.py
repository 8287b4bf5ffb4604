"""One table of error codes: total, and the very numbers that clients were promised."""

from typing import Final

from daemon.wire.errors import HANDLING, Code

# code | HTTP status | mlxctl's exit code; a program that finds no daemon sees the last line.
PROMISED: Final = """
invalid_request     400   2
unauthorized        401   3
not_found           404   4
incompatible        422   5
over_budget         422   5
quarantined         422   5
conflict            409   6
queue_full          429  75
busy                503  75
deadline            503  75
shutting_down       503  75
read_only           503  75
worker_failed       502   7
cancelled           499 130
lagged              500   1
protocol_mismatch   500   1
internal            500   1
no_daemon           503  69
"""


def test_the_table_is_the_one_that_was_promised() -> None:
    rows = [line.split() for line in PROMISED.strip().splitlines()]
    promised = {code: (int(status), int(exit_code)) for code, status, exit_code in rows}
    handled = {c.value: (h.http_status, h.exit_code) for c, h in HANDLING.items()}
    assert handled == promised
    assert {code.value for code in Code} == promised.keys()


def test_what_a_retry_can_help_is_a_matter_of_the_code() -> None:
    """A retry helps where time does: not where the request or the files must change."""
    retryable = {code.value for code, handling in HANDLING.items() if handling.retryable}
    assert retryable == {
        "queue_full",
        "busy",
        "deadline",
        "shutting_down",
        "read_only",
        "worker_failed",
        "lagged",
        "no_daemon",
    }
