"""Small words that every page uses."""

from ctl.blocks import harmless


def test_harmless_keeps_what_is_text() -> None:
    assert harmless("ü 🟥\tx\ny\r\n") == "ü 🟥\tx\ny\n"
    assert harmless("\x00\x07\x1b\x7f\x9b") == "\ufffd" * 5
