"""The repository as text: its modules, what they import, and the files that git would keep."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("daemon", "ctl", "http_bridge", "launchd")

_MODULE: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+(:\w+)?", re.IGNORECASE)


class Module:
    """One Python file.

    Attributes:
        name: As it is imported: ``daemon.wire.errors``; a package has its folder's name.
        path: From the root of the repository, with slashes.
    """

    def __init__(self, file: Path) -> None:
        relative = file.relative_to(REPOSITORY)
        parts = relative.with_suffix("").parts
        self.path = relative.as_posix()
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.text = file.read_text(encoding="utf-8")

    @cached_property
    def imports(self) -> tuple[tuple[int, str], ...]:
        """Line and full name of everything imported anywhere in the file, late ones too.

        ``from a import b`` gives ``a.b``: b may be a module. Where a file calls
        ``import_module``, every text in it that reads like a module's name counts.
        """
        return tuple(self._imports())

    def _imports(self) -> Iterator[tuple[int, str]]:
        nodes = list(ast.walk(ast.parse(self.text)))
        by_name = any(isinstance(n, ast.Call) and _called(n) == "import_module" for n in nodes)
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: relative import"
                yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names)
            elif by_name and isinstance(node, ast.Constant) and _MODULE.fullmatch(str(node.value)):
                yield node.lineno, str(node.value).partition(":")[0]


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def within(name: str, package: str) -> bool:
    """Whether a dotted name is ``package`` or lies in it."""
    return name == package or name.startswith(f"{package}.")


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every module under these folders of the repository, in order."""
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    return tuple(Module(file) for file in sorted(files))


@cache
def kept_files() -> tuple[Path, ...]:
    """Files that are in git or would be by ``git add``: none that are ignored."""
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    )
    found = (REPOSITORY / name for name in listed.stdout.split("\0") if name)
    return tuple(sorted(path for path in found if path.is_file()))
