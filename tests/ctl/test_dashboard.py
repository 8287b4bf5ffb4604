"""The screen of ``mlxctl top``, without a terminal."""

from datetime import UTC

import msgspec

from ctl.blocks import Line, Page
from ctl.dashboard import Dashboard
from ctl.plain import plain
from daemon.wire.records import read_record
from tests.ctl.views import LINES, resident, status

ONE, TWO = resident(name="one", worker="w1"), resident(name="two", worker="w2")


def board(*models: object) -> Dashboard:
    made = Dashboard(UTC)
    made.take_status(status(models=models))
    return made


def marked(page: Page) -> list[str]:
    return [
        row[0].text
        for block in page
        if hasattr(block, "rows")
        for row in block.rows
        if row[0].style == "chosen"
    ]


def test_the_newest_events_fill_the_room_that_is_left() -> None:
    made = board(ONE)
    for line in LINES:
        made.take_record(read_record(line))

    assert plain(made.body(200, 30)).splitlines()[5:] == [
        "",
        "LATELY",
        "14:13:20  mlxd 0.1.0 started as pid 812, run 1, budget 24.0 GB of 32.0 GB",
        "14:13:21  mlxd/glimpse: loading as asked by mlxctl: 1.20 GB reserved",
        (
            "14:13:22  mlxd/glimpse: ready after 840 ms of loading: "
            "1.10 GB measured, context 2,048 tokens"
        ),
    ]
    assert plain(made.body(40, 9)).splitlines()[5:] == [
        "",
        "LATELY",
        "14:13:22  mlxd/glimpse: ready after 840…",
    ]
    assert "LATELY" not in plain(made.body(200, 7))


def test_the_choice_stays_with_its_model_and_within_the_list() -> None:
    made = board(ONE, TWO)
    assert marked(made.body(100, 30)) == ["one"]
    made.move(5)
    assert marked(made.body(100, 30)) == ["two"]
    made.take_status(status(models=(TWO, ONE)))
    assert made.chosen == TWO
    made.move(-5)
    assert made.chosen == TWO
    made.take_status(status(models=(ONE,)))
    assert made.chosen == ONE
    made.take_status(status(models=()))
    assert made.chosen is None
    made.move(1)


def test_what_is_wrong_and_who_waits_is_shown() -> None:
    view = status(models=(), warnings=("safe mode",), committed_bytes=0)
    made = Dashboard(UTC)
    assert "waiting for it" in plain(made.body(100, 30))
    made.take_status(view)

    assert plain(made.body(100, 30)).splitlines() == [
        "mlxd 0.1.0, up 3h 12m, 0 models",
        "Memory: 0 B of 24.0 GB (0 %), 24.0 GB free",
        "Warning: safe mode",
        "",
        "No model is loaded.",
    ]


def test_a_page_hides_the_rest_until_it_is_put_away() -> None:
    made = board(ONE)
    made.say("hello")
    assert made.foot()[0] == Line("hello")
    made.page_shown = (Line("because"),)

    assert plain(made.body(100, 30)) == "because\n"
    assert made.foot()[1].text == "any key goes back"


def test_memory_of_events_is_bounded() -> None:
    made = board(ONE)
    record = read_record(LINES[3])
    for seq in range(1000):
        made.take_record(msgspec.structs.replace(record, seq=seq))

    assert len(plain(made.body(200, 5000)).splitlines()) < 250
