"""mlxctl as people run it: a process with a home of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import Process

REPO_ROOT = Path(__file__).resolve().parents[2]


class Ended(msgspec.Struct, frozen=True):
    """A finished run of mlxctl."""

    code: int
    out: str
    err: str


class Ctl:
    """Runs ``mlxctl`` against one home.

    Attributes:
        home: Its MLXD_HOME, short enough for socket paths everywhere; models of the Hugging
            Face cache are under ``hf`` in it.
        run_dir: Where the control socket belongs.
        always: What every run has in its environment, beside the usual.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run_dir = home / "run"
        self.run_dir.mkdir(mode=0o700)
        self.always: dict[str, str] = {"HF_HOME": str(home / "hf")}

    @property
    def socket(self) -> str:
        return str(self.run_dir / "mlxd.sock")

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ctl", *arguments]

    def environ(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        cache = os.environ.get("PYTHONPYCACHEPREFIX")
        return kept | {
            "MLXD_HOME": str(self.home),
            "PYTHONPATH": str(REPO_ROOT),
            "TZ": "UTC",
            "COLUMNS": "140",
            **({"PYTHONPYCACHEPREFIX": cache} if cache else {}),
            **self.always,
            **more,
        }

    async def __call__(
        self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None, **more: str
    ) -> Ended:
        """Run to the end; ``more`` is added to the environment."""
        done = await anyio.run_process(
            self.argv(*arguments),
            input=stdin,
            check=False,
            cwd=cwd or self.home,
            env=self.environ(**more),
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def started(
        self, *arguments: str, stdout: int = subprocess.PIPE
    ) -> AsyncIterator[Process]:
        """A running mlxctl, killed if the block is left before it has ended."""
        process = await anyio.open_process(
            self.argv(*arguments), cwd=self.home, env=self.environ(), stdout=stdout
        )
        async with process:
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()


@pytest.fixture
def mlxctl() -> Iterator[Ctl]:
    home = Path(tempfile.mkdtemp(prefix="ctl-", dir="/tmp"))
    yield Ctl(home)
    shutil.rmtree(home)
