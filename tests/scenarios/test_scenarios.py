"""Every story comes out as it is written."""

import os
from pathlib import Path

import pytest

from tests.scenarios.transcript import perform

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_comes_out_as_it_is_written(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    came = perform(told)
    if os.environ.get("UPDATE_SCENARIOS"):
        path.write_text(came, encoding="utf-8")
    assert came.splitlines() == told.splitlines()


def test_there_are_stories() -> None:
    assert len(STORIES) > 40


def test_an_event_that_is_not_named_fails_the_story() -> None:
    told = "budget 10G\nmodel A 4G\n> acquire 1 A\n    waiter.queued waiter=#1:A\n"

    assert perform(told) != told


def test_an_event_that_does_not_come_fails_the_story() -> None:
    told = "budget 10G\n> stop\n    stop.began reason=SIGTERM\n    waiter.left #1\n"

    assert perform(told) != told
    assert perform(told) == "budget 10G\n> stop\n    stop.began reason=SIGTERM\n"
