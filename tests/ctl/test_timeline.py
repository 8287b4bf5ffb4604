"""Records as tables that continue one another."""

from datetime import UTC

from ctl.blocks import Line, Table
from ctl.plain import plain
from ctl.timeline import Timeline
from daemon.wire.records import ModelNames, Record, read_record
from tests.ctl.views import LINES


def records() -> tuple[list[Record], ModelNames]:
    names = ModelNames({})
    found = [read_record(line) for line in LINES]
    for record in found:
        names.learn(record)
    return found, names


def test_piped_timeline_word_for_word() -> None:
    found, names = records()
    timeline = Timeline(names, None, UTC)

    text = plain(timeline.page([(record, record.events) for record in found[:2]]))
    text += plain(timeline.page([(record, record.events) for record in found[2:]]))

    assert text == (
        "   SEQ  TIME                 EVENT                MODEL                     "
        "CAUSE                 WHAT\n"
        "     1  2026-09-21 14:13:20  daemon.started                                 "
        "start-up              mlxd 0.1.0 started as pid 812, run 1, budget 24.0 GB of 32.0 GB\n"
        "     2  2026-09-21 14:13:21  load.started         mlxd/glimpse              "
        "mlxctl load           loading as asked by mlxctl: 1.20 GB reserved\n"
        "     3  2026-09-21 14:13:21  worker.spawned       mlxd/glimpse              "
        "worker                worker w1 runs as pid 900\n"
        "     4  2026-09-21 14:13:22  load.ready           mlxd/glimpse              "
        "worker                ready after 840 ms of loading: "
        "1.10 GB measured, context 2,048 tokens\n"
    )


def test_a_pipe_widens_for_a_long_name_and_stays_aligned() -> None:
    long = "mlx-community/Qwen3-235B-A22B-Instruct-2507-4bit-DWQ"
    timeline = Timeline(ModelNames({}), None, UTC)

    def page(*names: str) -> list[str]:
        pinned = tuple({"type": "model.pinned", "model": name} for name in names)
        record = Record(5, 1_790_000_000_000, {"command": "pin"}, pinned)
        return plain(timeline.page([(record, pinned)])).splitlines()

    heading, *rows = page("a", long)
    rows += page("b")

    assert {row.index("pinned: never") for row in rows} == {heading.index("WHAT")}


def test_a_long_name_loses_its_middle_on_a_terminal_and_nothing_in_a_pipe() -> None:
    name = "mlx-community/Qwen3-235B-A22B-Instruct-2507-4bit-DWQ"
    pinned = {"type": "model.pinned", "model": name}
    record = Record(5, 1_790_000_000_000, {"command": "pin"}, (pinned,))

    def shown(width: int | None) -> str:
        (*_, table) = Timeline(ModelNames({}), width, UTC).page([(record, record.events)])
        assert isinstance(table, Table)
        return next(cell.text for cell in table.rows[0] if cell.style == "title")

    assert shown(None) == name
    assert shown(80) == "mlx-comm…bit-DWQ"
    assert len(shown(160)) == 24


def test_a_terminal_shows_the_day_once() -> None:
    found, names = records()
    next_day = Record(5, found[0].at_ms + 86_400_000, {"command": "tick"}, found[0].events)
    timeline = Timeline(names, 160, UTC)

    blocks = timeline.page([(record, record.events) for record in (*found[:2], next_day)])

    assert [block.text for block in blocks if isinstance(block, Line)] == [
        "2026-09-21",
        "2026-09-22",
    ]
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [(table.header, len(table.rows)) for table in tables] == [
        (True, 0),
        (False, 2),
        (False, 1),
    ]
    assert tables[1].rows[0][1].text == "14:13:20"


def test_a_narrow_terminal_keeps_sentence_and_cause() -> None:
    found, names = records()

    blocks = Timeline(names, 80, UTC).page([(found[1], found[1].events)])

    assert [cell.text for cell in blocks[-1].rows[0]] == [  # type: ignore[union-attr]
        "2",
        "14:13:21",
        "mlxd/glimpse",
        "loading as asked by mlxctl: 1.20 GB reserved [mlxctl load]",
    ]


def test_an_unexpected_end_stands_out() -> None:
    names = ModelNames({})
    event = {"type": "worker.exited", "worker": "w1", "model": "g", "expected": False}
    record = Record(9, 0, {"command": "report_exit"}, (event, event | {"expected": True}))

    table = Timeline(names, 160, UTC).page([(record, record.events)])[-1]

    assert [row[2].style for row in table.rows] == ["bad", "plain"]  # type: ignore[union-attr]
