"""Every story comes out as it is written."""

import os
import re
from pathlib import Path

import pytest

from tests.scenarios.transcript import perform

TABLE = Path(__file__).parent / "README.md"
STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_comes_out_as_it_is_written(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    came = perform(told)
    if os.environ.get("UPDATE_SCENARIOS"):
        path.write_text(came, encoding="utf-8")
    assert came.splitlines() == told.splitlines()


def test_the_table_names_every_story_and_only_what_is_there() -> None:
    here, repository = Path(__file__).parent, Path(__file__).parents[2]
    named = set(re.findall(r"`([^`]+\.(?:txt|py))`", TABLE.read_text(encoding="utf-8")))
    missing = {n for n in named if not (repository / n).exists() and not (here / n).exists()}

    assert missing == set()
    assert {path.name for path in STORIES} - named == set(), "say which rule it shows"


def test_an_event_that_is_not_named_fails_the_story() -> None:
    told = "budget 10G\nmodel A 4G\n> acquire 1 A\n    waiter.queued waiter=#1:A\n"

    assert perform(told) != told


def test_an_event_that_does_not_come_fails_the_story() -> None:
    told = "budget 10G\n> stop\n    stop.began reason=SIGTERM\n    waiter.left #1\n"

    assert perform(told) != told
    assert perform(told) == "budget 10G\n> stop\n    stop.began reason=SIGTERM\n"
