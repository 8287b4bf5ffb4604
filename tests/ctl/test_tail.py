"""The ends of text logs, growing, rotated and cut back."""

from datetime import UTC
from pathlib import Path

import pytest

from ctl.blocks import Line
from ctl.tail import Tail, log_line


def test_the_last_lines_of_a_large_file(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    file.write_text("".join(f"line {n} {'x' * 100}\n" for n in range(5000)))

    assert [line.split()[1] for line in Tail(file).last(3)] == ["4997", "4998", "4999"]
    assert len(Tail(file).last(9000)) == 5000
    assert Tail(file).last(0) == []


def test_what_is_added_comes_in_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    file.write_text("one\n")
    tail = Tail(file)
    assert tail.last(10) == ["one"]
    assert tail.more() == []
    with file.open("a") as log:
        log.write("two\nthr")
        log.flush()
        assert tail.more() == ["two"]
        log.write("ee ü\n")
    assert tail.more() == ["three ü"]


def test_a_rotated_and_a_cut_file_begin_again(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    file.write_text("one\n")
    tail = Tail(file)
    tail.last(1)
    file.rename(tmp_path / "daemon.log.1")
    assert tail.more() == []
    file.write_text("two, which is longer\n")
    assert tail.more() == ["two, which is longer"]
    file.write_text("3\n")
    assert tail.more() == ["3"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"worker": "w4", "event": "load.ready", "timestamp": "2026-09-21T14:13:20.304316Z"}',
         Line("2026-09-21 14:13:20  load.ready  worker=w4")),
        ('{"why": "no room left", "event": "log.warning", "level": "warning"}',
         Line('warning  log.warning  why="no room left"', "warn")),
        ("Traceback (most recent call last):", Line("Traceback (most recent call last):")),
        ('{"seq": 1}', Line('{"seq": 1}')),
        ("[1]", Line("[1]")),
        ("", Line()),
    ],
)  # fmt: skip
def test_lines_for_people(line: str, shown: Line) -> None:
    assert log_line(line, UTC) == shown
