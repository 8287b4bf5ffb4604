"""Which records of a log concern a model."""

from ctl.story import Story
from daemon.wire.records import read_record
from tests.ctl.views import LINES


def read(story: Story) -> Story:
    for line in LINES:
        story.take(read_record(line))
    return story


def test_by_name() -> None:
    story = read(Story("mlxd/glimpse"))

    assert [(t.seq, t.type) for t in story.records()] == [(2, "load.started"), (4, "load.ready")]
    assert (story.loads, story.seen, story.last_seq) == (1, True, 4)


def test_by_folder_under_another_name() -> None:
    story = read(Story("tuned", "/m"))

    assert [t.seq for t in story.records()] == [2, 4]


def test_another_model() -> None:
    story = read(Story("other", "/other"))

    assert (list(story.records()), story.seen, story.last_seq) == ([], False, 4)
