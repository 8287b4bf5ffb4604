"""The bar itself."""

import io

import pytest

from ctl.bar import describe_remaining, make_bar


@pytest.mark.parametrize(
    ("ready_at_s", "words"),
    [
        (None, ""),
        (10.0, ""),
        (9.0, ""),
        (10.4, "about 1 s left"),
        (12.0, "about 2 s left"),
        (140.0, "about 2m 10s left"),
    ],
)
def test_what_remains_at_second_10(ready_at_s: float | None, words: str) -> None:
    assert describe_remaining(ready_at_s, 10.0) == words


def test_a_name_is_no_markup() -> None:
    stream = io.StringIO()
    bar = make_bar(stream, {})
    bar.add_task("[red]tiny[/red]", total=None, amount="1 of 2", ready_at_s=None)
    bar.console.print(bar.get_renderable())

    assert "[red]tiny[/red]" in stream.getvalue()
    assert "1 of 2" in stream.getvalue()
