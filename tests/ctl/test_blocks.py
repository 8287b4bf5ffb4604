"""Small words that every page uses."""

from ctl.blocks import counted, harmless


def test_harmless_keeps_what_is_text() -> None:
    assert harmless("ü 🟥\tx\ny\r\n") == "ü 🟥\tx\ny\n"
    assert harmless("\x00\x07\x1b\x7f\x9b") == "\ufffd" * 5


def test_counted() -> None:
    assert [counted(n, "request") for n in (0, 1, 1200)] == [
        "0 requests",
        "1 request",
        "1,200 requests",
    ]
    assert counted(2, "entry", "entries") == "2 entries"
