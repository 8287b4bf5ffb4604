"""What ARCHITECTURE.md promises is held by tests that it names, and that are there."""

import ast
import re
from functools import cache
from typing import Final

import pytest

from tests.architecture.tree import REPOSITORY, modules

TEXT: Final = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
STORY: Final = re.compile(r"`(tests/scenarios/\w+\.txt)`")


def section(title: str) -> list[str]:
    """The lines of one section."""
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0].splitlines()


INVARIANTS: Final = [line for line in section("Invariants") if line.startswith("- **")]
ENDS: Final = [line for line in section("When something dies") if line.startswith("| ")][1:]


@cache
def functions_of(path: str) -> frozenset[str]:
    """The names of the test functions of a file, found without running anything."""
    file = REPOSITORY / path
    tree = ast.parse(file.read_text("utf-8")) if file.exists() else ast.Module([], [])
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions)


@pytest.mark.parametrize("line", INVARIANTS + ENDS, ids=lambda line: line[:40])
def test_every_promise_names_what_holds_it(line: str) -> None:
    assert NAMED.search(line) or STORY.search(line), line


def test_there_are_promises() -> None:
    assert len(INVARIANTS) >= 12
    assert len(ENDS) >= 15


def test_every_test_that_is_named_exists() -> None:
    gone = [
        f"{path}::{name}" for path, name in NAMED.findall(TEXT) if name not in functions_of(path)
    ]
    assert gone == []
    assert [path for path in STORY.findall(TEXT) if not (REPOSITORY / path).exists()] == []


MAY_SET_A_POOL: Final = {"daemon/kernel.py", "daemon/pool/draft.py", "daemon/history.py"}
"""The kernel's is the truth; a draft's is local to one decision, history's to one answer."""

MAY_OPEN_THE_LOG: Final = {"daemon/app.py", "daemon/historytool.py", "daemon/eventlog/audit.py"}
"""The daemon; a reader, which opens it for reading; and a repair, while no daemon runs."""

MAY_APPEND: Final = {"daemon/kernel.py"}


def test_one_writes() -> None:
    """Of the event log and of the pool: whoever else wants a change sends a command."""
    setting, opening, appending = set(), set(), set()
    for module in modules("daemon"):
        for node in ast.walk(ast.parse(module.text)):
            if isinstance(node, ast.Assign) and any(_is(t, "pool") for t in node.targets):
                setting.add(module.path)
            if isinstance(node, ast.Call) and _is(node.func, "open") and _named(node, "EventLog"):
                opening.add(module.path)
            if isinstance(node, ast.Call) and _is(node.func, "append") and _named(node, "_log"):
                appending.add(module.path)
    assert setting == MAY_SET_A_POOL
    assert opening == MAY_OPEN_THE_LOG
    assert appending == MAY_APPEND


def _is(node: ast.expr, attribute: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == attribute


def _named(call: ast.Call, name: str) -> bool:
    """Whether the call is of a method of something with this name."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return name in (getattr(owner, "id", None), getattr(owner, "attr", None))
