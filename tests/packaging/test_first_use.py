"""A first-time user's path: the lines of the README, in an empty environment, from the wheel."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.service import config_toml
from tests.fakes.managers.running import Kind, RunningManager, running_manager
from tests.packaging.conftest import REPOSITORY, UV

pytestmark = pytest.mark.slow

PORT: Final = "11411"
EXPECTED: Final = {
    "mlxctl service install": "mlx-bridge  yes        yes      yes     pid ",
    "mlxctl models": "mlxd/glimpse",
    "mlxctl load": "is loaded",
    "mlxctl run": "red",
    "curl": '"finish_reason":"stop"',
    "mlxctl why": "in memory",
    "mlxctl service restart": "mlxd        yes        yes      yes     pid ",
    "mlxctl service uninstall": "no services any more",
}
"""What a line that begins so prints, among other things."""


def lines_of_the_readme() -> list[str]:
    """The commands of its section about installing."""
    section = (REPOSITORY / "README.md").read_text("utf-8").partition("## Installing it")[2]
    block = section.partition("```console")[2].partition("```")[0]
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return [line.partition("  #")[0].strip() for line in lines]


class Newcomer:
    """Somebody with a shell, a home folder, and uv; ``environ`` has nothing of this checkout."""

    def __init__(self, manager: RunningManager, wheel: Path, port: int) -> None:
        self.manager = manager
        self.home = manager.user_home
        self.desk = self.home / "desk"
        self.port = port
        (self.desk / "dist").mkdir(parents=True)
        shutil.copy(wheel, self.desk / "dist")
        shutil.copytree(REPOSITORY / "daemon" / "models" / "glimpse", self.desk / "shapes")
        picture = REPOSITORY / "tests" / "fixtures" / "images" / "red_square.png"
        shutil.copy(picture, self.desk / "picture.png")
        tools = f"{self.home}/.local/bin:{manager.folder}/bin"
        self.environ = {
            "HOME": str(self.home),
            "PATH": f"{tools}:{os.defpath}",
            # Time on a shared machine: the cache of this machine, the versions of the lock.
            "UV_CACHE_DIR": cache_of_uv(),
            "UV_CONSTRAINT": str(REPOSITORY / "requirements.lock"),
            **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))},
        }

    def configure(self) -> None:
        """Another port than the usual one, and the tests' fast BLAS; nothing that mlxd needs."""
        config = self.home / ".config" / "mlxd" / "config.toml"
        config.parent.mkdir(parents=True, mode=0o700)
        config.write_text(config_toml({}, f"[http]\nport = {self.port}\n"))

    def types(self, line: str) -> str:
        """Run one line in a shell; what it prints."""
        done = subprocess.run(
            ["bash", "-c", line.replace(PORT, str(self.port))],
            cwd=self.desk,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        return done.stdout


def cache_of_uv() -> str:
    done = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(params=["launchd", "systemd"])
def newcomer(request: pytest.FixtureRequest, wheel: Path) -> Iterator[Newcomer]:
    kind: Kind = request.param
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with running_manager(kind) as manager:
        (manager.folder / "bin" / "uv").symlink_to(UV)
        made = Newcomer(manager, wheel, port)
        yield made
        if manager.ask("test", "loaded") != (0, ""):  # the test has failed
            made.types("mlxctl service uninstall")


def test_the_lines_of_the_readme(newcomer: Newcomer) -> None:
    build, install, *rest = lines_of_the_readme()
    assert build == "uv build"  # done: see the conftest
    newcomer.types(install)
    newcomer.configure()
    said = {line: newcomer.types(line) for line in rest}
    for start, expected in EXPECTED.items():
        (line,) = [line for line in said if line.startswith(start)]
        assert expected in said[line], f"$ {line}\n{said[line]}"
    theirs = (newcomer.desk, newcomer.home / ".local" / "share" / "uv")
    left = [
        path
        for path in newcomer.home.rglob("*")
        if path.is_file() and not any(path.is_relative_to(place) for place in theirs)
    ]
    assert left == [], "nothing is left in the user's home"
    assert newcomer.manager.ask("test", "loaded") == (0, ""), "nor with the manager"
