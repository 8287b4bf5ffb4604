"""Aligned text for pipes."""

from ctl.blocks import Cell, Column, Line, Meter, Table
from ctl.plain import plain


def test_columns_are_aligned_and_no_line_ends_in_blanks() -> None:
    table = Table(
        (Column("NAME"), Column("N", right=True), Column("NOTE")),
        ((Cell("a"), Cell("1"), Cell("")), (Cell("longer"), Cell("200"), Cell("x", "bad"))),
    )

    assert plain((table,)) == "NAME      N  NOTE\na         1\nlonger  200  x\n"


def test_fixed_widths_let_a_later_table_continue_an_earlier_one() -> None:
    columns = (Column("A", width=4), Column("B"))

    assert plain((Table(columns, ((Cell("x"), Cell("y")),)),)) == "A     B\nx     y\n"
    assert plain((Table(columns, ((Cell("x"), Cell("y")),), header=False),)) == "x     y\n"


def test_lines_and_meters() -> None:
    assert plain((Line("hello"), Line(), Meter("Memory", 1, 2, "1 of 2"))) == (
        "hello\n\nMemory: 1 of 2\n"
    )


def test_a_cell_is_one_line_without_control_codes() -> None:
    table = Table((Column("NAME"),), ((Cell("a\nb\x1b[31m"),),), header=False)

    assert plain((table,)) == "a b\ufffd[31m\n"
