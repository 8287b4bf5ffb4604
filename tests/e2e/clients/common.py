"""What every program here asks, and how it says what it got.

Each is run as ``python PROGRAM URL MODEL`` by the interpreter of ``.cache/clients-venv``. It asks
with a tool that has to be called, gives the tool's result back, streams the answer, and prints one
line of JSON. It imports nothing of mlxd.
"""

import json
import sys
from importlib import metadata
from typing import Any

QUESTION = "What is the weather in Tokyo?"
RESULT = "sunny, 21 degrees"
CITIES = ["Tokyo", "Paris", "Oslo"]
NAME = "get_weather"
DESCRIPTION = "The weather in a city"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA},
}
CALL_TOKENS_MAX = 120
ANSWER_TOKENS_MAX = 12


def address() -> tuple[str, str]:
    """The service's URL and the model, from the command line."""
    return sys.argv[1], sys.argv[2]


def say(package: str, calls: list[tuple[str, dict[str, Any]]], pieces: list[str]) -> None:
    """Report: which client in which version, the calls it understood, the text as it came."""
    version = metadata.version(package)
    print(json.dumps({"client": package, "version": version, "calls": calls, "pieces": pieces}))
