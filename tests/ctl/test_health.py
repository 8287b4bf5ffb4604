"""Findings of ``mlxctl doctor``, word for word."""

from ctl.health import Check, check_page, checks_shape, healthy, summary_page
from ctl.plain import plain

GOOD = Check(name="settings", verdict="ok", said="all defaults")
ODD = Check(name="disk", verdict="warning", said="2 GB free", fix="make room")
BAD = Check(name="event log", verdict="bad", said="damaged", fix="mlxctl log repair")
NOT = Check(name="service", verdict="skipped", said="not installed")


def test_a_finding_and_its_fix() -> None:
    pages = "".join(plain(check_page(check)) for check in (GOOD, BAD))

    assert pages == (
        "ok       settings      all defaults\n"
        "bad      event log     damaged\n"
        "                       → mlxctl log repair\n"
    )


def test_what_all_of_them_come_to() -> None:
    def last(*checks: Check) -> str:
        return plain(summary_page(checks)).strip()

    assert last(GOOD) == "All is well."
    assert last(GOOD, NOT) == "All is well. 1 of 2 checks were skipped."
    assert last(GOOD, ODD) == "It works; 1 remark in 2 checks."
    assert last(GOOD, ODD, BAD) == "1 thing is broken, in 3 checks."


def test_only_what_is_broken_is_an_illness() -> None:
    assert healthy((GOOD, ODD, NOT))
    assert not healthy((GOOD, BAD))
    assert checks_shape((BAD,)) == {
        "v": 1,
        "healthy": False,
        "checks": [
            {"name": "event log", "verdict": "bad", "said": "damaged", "fix": "mlxctl log repair"}
        ],
    }
