"""Writes docs/settings.md from the structs of daemon/wire/settings.py.

Run ``python -m tests.daemon.wire.generate_settings_doc`` after changing a setting; a test
compares the page with what this gives.
"""

import inspect as python_inspect
import json
import re
from pathlib import Path
from typing import Any, Final

from msgspec import NODEFAULT, Struct, inspect

from daemon.wire.settings import ModelSettings, Settings

TARGET: Final = Path(__file__).parents[3] / "docs" / "settings.md"

INTRODUCTION: Final = """\
# Settings

One file, `config.toml`, for `mlxd`, `mlx-bridge` and `mlxctl`. Every key has a default and the
file may be missing. It lies in `$MLXD_HOME` if that is set; otherwise in
`~/Library/Application Support/mlxd` on macOS and in `~/.config/mlxd` on Linux. An unknown key
is a mistake; `mlxd check` names the key and the line.

Sizes are numbers of bytes or text: `"24G"` is 24·10⁹, `"24Gi"` is 24·2³⁰. Times are numbers
of seconds or text: `"90s"`, `"5m"`, `"2h"`.

This page is generated: `python -m tests.daemon.wire.generate_settings_doc`.
"""

EXAMPLE: Final = """\
[pool]
memory = "48G"
ttl_s = "30m"
preload = ["chat"]

[models."mlx-community/Qwen3-8B-4bit"]
pin = true
draft = "mlx-community/Qwen3-0.6B-4bit"

[models."mine/assistant"]
path = "~/models/assistant"
adapter = "~/models/assistant-lora"

[aliases]
chat = ["mlx-community/Qwen3-8B-4bit", "mlxd/glimpse"]
"""


def attributes(struct: type[Struct]) -> dict[str, str]:
    """The "Attributes:" section of a docstring, by name."""
    _, _, section = (python_inspect.getdoc(struct) or "").partition("Attributes:\n")
    entries = re.split(r"\n {4}(?=\w+: )", "\n" + section.rstrip())
    pairs = (entry.partition(": ") for entry in entries if entry.strip())
    return {name.strip(): " ".join(text.split()).replace("``", "`") for name, _, text in pairs}


def kind_of(kind: inspect.Type) -> str:
    """A type in a reader's words."""
    match kind:
        case inspect.UnionType():
            kinds = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return ", or ".join(kind_of(one) for one in kinds)
        case inspect.LiteralType():
            return ", ".join(f'"{value}"' for value in kind.values)
        case inspect.Metadata():
            unit = (kind.extra or {}).get("unit")
            return {"bytes": "size", "seconds": "time"}.get(str(unit), kind_of(kind.type))
        case inspect.IntType() if kind.ge is not None and kind.le is not None:
            return f"{kind.ge} to {kind.le}"
        case inspect.IntType():
            return "number" if kind.ge is None else f"number, {kind.ge} or more"
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType():
            return "list of texts"
        case inspect.DictType():
            return "texts by name"
        case _:
            return "text"


def default_of(field: inspect.Field) -> str:
    """A default as it would be written in the file."""
    if field.default_factory is dict:
        return "`{}`"
    if field.default is NODEFAULT or field.default is None:
        return ""
    value: Any = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value)}`"


def table(title: str, struct: type[Struct]) -> str:
    """One section of the page."""
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    texts = attributes(struct)
    rows = [
        f"| `{field.name}` | {kind_of(field.type)} | {default_of(field)} | {texts[field.name]} |"
        for field in described.fields
    ]
    first = (python_inspect.getdoc(struct) or "").partition("\n")[0].replace("``", "`")
    head = [
        f"## `{title}`",
        "",
        first,
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def render() -> str:
    """The whole page."""
    described = inspect.type_info(Settings)
    assert isinstance(described, inspect.StructType)
    sections = [
        table(f"[{field.name}]", field.type.cls)
        for field in described.fields
        if isinstance(field.type, inspect.StructType)
    ]
    sections.insert(1, table('[models."id"]', ModelSettings))
    meaning = attributes(Settings)["aliases"]
    sections.insert(
        2,
        f'## `[aliases]`\n\n{meaning}\n\n`name = "id"`, or `name = ["first", "second"]`: the first '
        "that loads serves.\n",
    )
    return "\n".join([INTRODUCTION, *sections, "## Example", "", f"```toml\n{EXAMPLE}```", ""])


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
