"""Tables as people see them."""

import pytest

from benchmarks.figures import Row, Spread, Table, Target
from benchmarks.render import number, summary_text, table_text

EXPECTED = """
demo: two rows
  what           ours                  beside      theirs                ratio              target
  toy, 1 stream  412 tok/s (398..431)  in-process  440 tok/s (430..450)  0.94 (0.90..0.96)  >= 0.97     short
  daemon rss     39.2 MB                                                                    <= 40.0 MB  OK
      after its start
  * a note
"""  # noqa: E501  (as it is printed)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12_345.6, "12,346"), (99.94, "99.9"), (1.234, "1.23"), (0.0421, "0.042"), (0, "0")],
)
def test_numbers_keep_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


ROWS = (
    Row(
        what="toy, 1 stream",
        unit="tok/s",
        ours=Spread(412, 398, 431, 5),
        beside="in-process",
        theirs=Spread(440, 430, 450, 5),
        ratio=Spread(0.94, 0.9, 0.96, 5),
        target=Target(at_least=0.97),
    ),
    Row(
        what="daemon rss",
        unit="MB",
        ours=Spread(39.25, 39.25, 39.25, 1),
        target=Target(at_most=40, of="ours"),
        note="after its start",
    ),
)


def test_a_table_lines_up_and_says_where_it_falls_short() -> None:
    text = table_text(Table("demo", "two rows", ROWS, ("a note",)))
    assert text.splitlines() == EXPECTED.strip().splitlines()


def test_the_end_tells_what_was_not_reached() -> None:
    tables = (Table("demo", "two rows", ROWS), Table("none", "no targets", ()))
    assert summary_text(tables).splitlines() == [
        "1 of 2 targets reached",
        "  short  demo: toy, 1 stream ÷ in-process: 0.94 (0.90..0.96), target >= 0.97",
    ]
