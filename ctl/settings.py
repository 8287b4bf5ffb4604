"""The settings as people see them: every key with its value, secrets left out. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from daemon.wire.settings import Settings

HIDDEN: Final = "(hidden)"


def settings_shape(settings: Settings) -> dict[str, Any]:
    """All settings by section; each API key and worker variable reads "(hidden)"."""
    shape: dict[str, Any] = msgspec.to_builtins(settings)
    shape["http"]["api_keys"] = [HIDDEN for _ in shape["http"]["api_keys"]]
    shape["worker"]["env"] = dict.fromkeys(shape["worker"]["env"], HIDDEN)
    return shape


def settings_text(shape: Mapping[str, Any]) -> str:
    """As it would stand in config.toml; what has no value is a comment."""
    return "\n\n".join("\n".join(lines) for lines in _tables(shape, ())) + "\n"


def _tables(table: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[list[str]]:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if plain:
        yield [f"[{'.'.join(map(_key, place))}]", *(_line(k, v) for k, v in plain.items())]
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _tables(value, (*place, key))


def _line(key: str, value: object) -> str:
    if value is None:
        return f"# {_key(key)} is not set"
    return f"{_key(key)} = {_value(value)}"


def _value(value: object) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's, too.
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else json.dumps(key, ensure_ascii=False)
