"""The table of `--check`: what counts as a failure. The checks themselves need real models."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.models import check
from tests.models.check import CheckFailed, judge, main


def raising(error: Exception) -> Callable[[Path], NoReturn]:
    def run(root: Path) -> NoReturn:
        raise error

    return run


def test_an_answer_is_shown() -> None:
    verdict = judge("m", lambda root: f"asked in {root.name}", Path("models"))
    assert (verdict.state, verdict.detail) == ("ok", "asked in models")


def test_a_missing_library_is_no_failure() -> None:
    verdict = judge("m", raising(ImportError("No module named 'mlx_audio'")), Path())
    assert verdict.state == "skipped"
    assert verdict.detail == "No module named 'mlx_audio'; install mlx-audio to check it"


@pytest.mark.parametrize("error", [CheckFailed("nonsense"), ValueError("bad shape")])
def test_everything_else_is(error: Exception) -> None:
    verdict = judge("m", raising(error), Path())
    assert verdict.state == "FAILED"
    assert verdict.detail == f"{type(error).__name__}: {error}"


def test_one_failure_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def good(root: Path) -> str:
        return "fine"

    monkeypatch.setattr(check, "CHECKS", {"good": good, "bad": raising(CheckFailed("no"))})
    assert main([".", "good"]) == 0
    assert main([".", "bad", "good"]) == 1
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["good", "ok"],
        ["good", "ok"],
        ["bad", "FAILED"],
    ]
