"""Pages drawn by rich."""

import io

from ctl.blocks import Cell, Column, Line, Meter, Table
from ctl.pretty import console, draw


def drawn(*blocks: Line | Table | Meter, width: int = 60, **environ: str) -> str:
    stream = io.StringIO()
    target = console(stream, environ)
    target.width = width
    draw(target, blocks)
    return stream.getvalue()


def test_a_table_keeps_numbers_whole_and_wraps_words() -> None:
    table = Table(
        (Column("N", right=True), Column("WHAT", grow=True)),
        ((Cell("12,345"), Cell("a sentence that is too long for one line of this width")),),
    )

    assert [line.rstrip() for line in drawn(table, width=30).splitlines()] == [
        "     N  WHAT",
        "12,345  a sentence that is too",
        "        long for one line of",
        "        this width",
    ]


def test_an_indented_paragraph_keeps_its_indent_where_it_is_broken() -> None:
    text = drawn(Line("  It takes 224 MB of the well-kept budget"), width=24)

    assert text == "  It takes 224 MB of the\n  well-kept budget\n"


def test_fixed_widths_let_a_later_table_continue_an_earlier_one() -> None:
    columns = (Column("A", width=4), Column("B"))
    first = drawn(Table(columns, ((Cell("x"), Cell("y")),)))
    second = drawn(Table(columns, ((Cell("xx"), Cell("y")),), header=False))

    assert first.splitlines()[1].index("y") == second.index("y") == 6


def test_a_meter_is_a_bar_and_words() -> None:
    text = drawn(Meter("Memory", 1, 2, "1 of 2"))

    assert text.rstrip() == f"Memory {'━' * 15}{'─' * 15} 1 of 2", "half of 30 characters"


def test_an_empty_or_full_meter_is_seen_without_colours() -> None:
    empty, full = Meter("Memory", 0, 2, "0 of 2"), Meter("Memory", 3, 2, "3 of 2")

    assert drawn(empty).rstrip() == f"Memory {'─' * 30} 0 of 2"
    assert drawn(full).rstrip() == f"Memory {'━' * 30} 3 of 2"


def test_a_meter_without_a_whole() -> None:
    assert drawn(Meter("Memory", 0, 0, "0 of 0")).rstrip() == f"Memory {'─' * 30} 0 of 0"


def test_markup_is_text() -> None:
    table = Table((Column("NAME"),), ((Cell("[red]x[/red]"),),))

    assert "[red]x[/red]" in drawn(table, Line("[bold]"))
    assert "[bold]" in drawn(Line("[bold]"))


def test_a_narrow_terminal_loses_the_columns_that_can_be_spared() -> None:
    columns = (Column("NAME"), Column("ONE", spare=1), Column("TWO", spare=2), Column("END"))
    table = Table(columns, (tuple(map(Cell, ("a-long-name", "111", "222", "end"))),))

    assert drawn(table, width=26).splitlines()[1].split() == ["a-long-name", "111", "222", "end"]
    assert drawn(table, width=25).splitlines()[1].split() == ["a-long-name", "111", "end"]
    assert drawn(table, width=16).splitlines()[1].split() == ["a-long-name", "end"]
