"""A service manager for a test: its process, and a ``launchctl`` or ``systemctl`` to ask it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
import pytest

REPOSITORY: Final = Path(__file__).parents[3]
TOOLS: Final = {"launchd": "launchctl", "systemd": "systemctl"}
Kind = Literal["launchd", "systemd"]

_TOOL = """#!{python} -IS
import json, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect({socket!r})
    s.sendall(json.dumps(sys.argv[1:]).encode())
    code, said = json.loads(s.makefile().read())
if said:
    print(said)
sys.exit(code)
"""


class RunningManager(msgspec.Struct, frozen=True):
    """Where it is; ``environ`` is what a user's shell has there."""

    kind: Kind
    folder: Path
    user_home: Path

    @property
    def home(self) -> Path:
        """What MLXD_HOME is."""
        return self.user_home / "mlxd"

    @property
    def environ(self) -> dict[str, str]:
        tools = self.folder / "bin"
        given = {
            "HOME": str(self.user_home),
            "MLXD_HOME": str(self.home),
            "PATH": f"{tools}:{os.defpath}",
        }
        cache = os.environ.get("PYTHONPYCACHEPREFIX")
        return given | ({"PYTHONPYCACHEPREFIX": cache} if cache else {})

    def ask(self, *argv: str) -> tuple[int, str]:
        """Ask as the tool does."""
        with socket.socket(socket.AF_UNIX) as dialled:
            dialled.connect(str(self.folder / "socket"))
            dialled.sendall(json.dumps(argv).encode())
            code, said = json.loads(dialled.makefile().read())
            return int(code), str(said)


@contextmanager
def running_manager(kind: Kind) -> Iterator[RunningManager]:
    """A user's session with nothing in it; what it started ends with the block."""
    with tempfile.TemporaryDirectory(prefix="sm-", dir="/tmp") as name:
        folder = Path(name)
        manager = RunningManager(kind, folder, folder / "home")
        (folder / "bin").mkdir()
        manager.user_home.mkdir()
        _make_tool(folder, kind)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.managers", kind, str(folder)],
            cwd=REPOSITORY,
            env=manager.environ,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                yield manager
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(120) == 0


def _make_tool(folder: Path, kind: Kind) -> None:
    tool = folder / "bin" / TOOLS[kind]
    tool.write_text(_TOOL.format(python=sys.executable, socket=str(folder / "socket")))
    tool.chmod(0o755)
    if kind == "launchd":
        build_activate(folder / "libactivate.so")


def build_activate(library: Path) -> None:
    """The C library with Apple's function; skips the test where it cannot be built."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs gcc and glibc")
    source = REPOSITORY / "tests" / "launchd" / "activate.c"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True
    )
