"""A real service for a test session: daemon and bridge as processes, on a home of their own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import msgspec

from daemon.wire.client import open_control
from daemon.wire.control import StatusView
from tests.models import REPO_ROOT, model_path
from tests.models.fastblas import fast_blas_env

T = TypeVar("T")

STOP_TIMEOUT_S: Final = 70
EMBEDDER: Final = "all-minilm"


class Service(msgspec.Struct, frozen=True):
    """Where the service under test is."""

    home: Path
    port: int
    daemon_pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> str:
        return str(self.home / "run" / "mlxd.sock")

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "MLXD_HOME": str(self.home)}

    def status(self) -> StatusView:
        """The pool now, asked over the control socket."""

        async def ask() -> StatusView:
            async with open_control(self.socket, "e2e") as control:
                return await control.status()

        return anyio.run(ask)

    def mlxctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``mlxctl`` as a person would, its output taken as text."""
        ran = subprocess.run(
            [sys.executable, "-m", "ctl", *arguments],
            env=self.environ,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or ran.returncode == 0, ran.stderr
        return ran

    def log_lines(self) -> list[dict[str, Any]]:
        """Every record of the event log, as written."""
        segments = sorted((self.home / "events").glob("*.jsonl"))
        return [json.loads(line) for s in segments for line in s.read_text("utf-8").splitlines()]

    def events(self, after_seq: int = 0) -> list[dict[str, Any]]:
        """The events of the records after ``after_seq``."""
        return [e for r in self.log_lines() if r["seq"] > after_seq for e in r["events"]]


@contextmanager
def running_service(config: str) -> Iterator[Service]:
    """Start both programs with ``config`` as their config.toml; stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="mlxd-e2e-") as folder:
        home = Path(folder)
        (home / "config.toml").write_text(config, "utf-8")
        with (
            started(home, "daemon") as (daemon, _),
            started(home, "http_bridge", "--port", "0") as (_, bridge_line),
        ):
            yield Service(home, bridge_line["port"], daemon.pid)


@contextmanager
def started(
    home: Path, package: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """One program of ours as a process, and the line it says when it is ready."""
    with (
        (home / f"{package}.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", package, *arguments],
            env={**os.environ, "MLXD_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / f"{package}.log").read_text("utf-8")
        try:
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def config_toml(models: dict[str, Path], extra: str = "") -> str:
    """A configuration for tests: named folders, no spare, the fast BLAS for Linux workers."""
    lines = ["[pool]", 'memory = "16G"', "[worker]", "spare = false", "[worker.env]"]
    lines += [
        f"{name} = {json.dumps(value)}"
        for name, value in fast_blas_env(REPO_ROOT / ".cache" / "fastblas").items()
    ]
    for name, path in models.items():
        lines += [f"[models.{json.dumps(name)}]", f"path = {json.dumps(str(path))}"]
    return "\n".join([*lines, extra, ""])


def embedder() -> dict[str, Path]:
    """The real embedding model, likewise."""
    return {EMBEDDER: model_path("all-MiniLM-L6-v2")}


def smollm() -> dict[str, Path]:
    """The real text model, where `make models` has built it."""
    return {"smollm2-135m": model_path("smollm2-135m-f32")}


def eventually(read: Callable[[], T], holds: Callable[[T], bool], within_s: float = 20) -> T:
    """Ask again and again until what is read holds; the asking is the waiting."""
    deadline = time.monotonic() + within_s
    while True:
        found = read()
        if holds(found):
            return found
        assert time.monotonic() < deadline, f"still not so after {within_s} s: {found}"
