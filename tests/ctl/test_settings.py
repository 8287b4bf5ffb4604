"""Settings as text that is TOML again."""

import tomllib
from pathlib import Path

from ctl.settings import settings_shape, settings_text
from daemon.wire.settings import parse_settings

TEXT = """
[pool]
memory = "24G"
preload = ["mlxd/glimpse"]

[models."org/größe \\"x\\""]
path = "/models/x"
pin = true

[aliases]
fast = ["org/größe \\"x\\""]
"""


def test_what_is_shown_is_toml_with_the_same_values() -> None:
    settings = parse_settings(TEXT, Path("/c/config.toml"))
    shown = tomllib.loads(settings_text(settings_shape(settings)))

    assert shown["pool"]["memory"] == 24_000_000_000
    assert shown["pool"]["preload"] == ["mlxd/glimpse"]
    assert shown["models"]['org/größe "x"']["path"] == "/models/x"
    assert shown["aliases"] == {"fast": ['org/größe "x"']}
    assert parse_settings(settings_text(settings_shape(settings)), Path("/c/x")) == settings
