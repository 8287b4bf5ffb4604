"""Our side: the shipped daemon and bridge as processes, on a home of their own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench import Bench, toml
from benchmarks.client import Server
from benchmarks.processes import alive, child_environ, started
from daemon.wire.client import Control, open_control
from daemon.wire.control import StatusView

ROWS_MAX = 32
"""As many requests at once as mlx_lm.server decodes by default."""

KV_TOKENS = 65_536


class ServiceFailed(Exception):
    """A program did not start; the message is its log."""


class Daemon(msgspec.Struct, frozen=True):
    """Where a daemon is, and its process."""

    home: Path
    daemon_pid: int

    @property
    def socket(self) -> str:
        return str(self.home / "run" / "mlxd.sock")

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Control]:
        """A control connection."""
        async with open_control(self.socket, "bench") as control:
            yield control


class Service(Daemon, frozen=True):
    """A daemon and a bridge in front of it."""

    port: int
    bridge_pid: int

    async def loaded(self, model: str) -> Server:
        """``model`` in memory and used once, as a server of its own."""
        async with self.control() as control:
            await control.load(model)
            pid = worker_pid(await control.status(), model)
        pids = {"worker": pid, "bridge": self.bridge_pid, "daemon": self.daemon_pid}
        return Server("mlxd", self.port, model, pids)


def worker_pid(status: StatusView, model: str) -> int:
    """The process that holds ``model``."""
    (pid,) = (resident.pid for resident in status.models if resident.name == model)
    assert pid is not None
    return pid


@contextmanager
def running_service(
    bench: Bench,
    models: Mapping[str, Path],
    *,
    stand_ins: bool = False,
    spare: bool = False,
    disk_bytes: int = 0,
) -> Iterator[Service]:
    """Both programs, knowing ``models``; ended with their workers at the end of the block.

    Args:
        stand_ins: Workers have engines without a model; see ``stand_in_worker``.
        spare: Whether a process waits for the next load; its start would disturb figures.
        disk_bytes: What computed prompts may take on disk.

    Raises:
        ServiceFailed: One of them did not start.
    """
    with (
        fresh_home(bench, models, spare=spare, disk_bytes=disk_bytes) as home,
        started_daemon(bench, home, stand_ins=stand_ins) as daemon,
        _program(bench, home, "http_bridge", "--port", "0") as (bridge, line),
    ):
        yield Service(home, daemon.daemon_pid, line["port"], bridge.pid)


@contextmanager
def fresh_home(
    bench: Bench, models: Mapping[str, Path], *, spare: bool = False, disk_bytes: int = 0
) -> Iterator[Path]:
    """A home whose configuration names ``models``; at the end its workers are ended."""
    with tempfile.TemporaryDirectory(prefix="mlxd-b-") as folder:
        home = Path(folder)
        (home / "config.toml").write_text(
            _config(bench, models, spare=spare, disk_bytes=disk_bytes), "utf-8"
        )
        try:
            yield home
        finally:
            _end_workers(home)


@contextmanager
def started_daemon(bench: Bench, home: Path, *, stand_ins: bool = False) -> Iterator[Daemon]:
    """A daemon on ``home``, once it accepts connections.

    Raises:
        ServiceFailed: It did not start.
    """
    package = "benchmarks.stand_in_daemon" if stand_ins else "daemon"
    with _program(bench, home, package) as (process, _):
        yield Daemon(home, process.pid)


@contextmanager
def _program(
    bench: Bench, home: Path, package: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """One program of ours and the line it says once it is ready."""
    log = bench.log_of(package)
    command = [sys.executable, "-m", package, *arguments]
    environ = child_environ({"MLXD_HOME": str(home)})
    with started(command, log, environ, talks=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ServiceFailed(log.read_text("utf-8"))
        yield process, json.loads(line)


def _config(bench: Bench, models: Mapping[str, Path], *, spare: bool, disk_bytes: int) -> str:
    lines = ["[pool]", 'memory = "12G"', f"kv_tokens = {KV_TOKENS}"]
    lines += ["[worker]", f"spare = {toml(spare)}", f"prefix_disk_bytes = {disk_bytes}"]
    lines += ["[worker.env]"]
    lines += [f"{name} = {toml(value)}" for name, value in bench.blas_env.items()]
    for name, path in models.items():
        lines += [f"[models.{toml(name)}]", f"path = {toml(str(path))}"]
        lines += [f"concurrency = {ROWS_MAX}"]
    return "\n".join([*lines, ""])


def _end_workers(home: Path) -> None:
    """Workers outlive a daemon that was killed; those of this home are ours to end."""
    listed = subprocess.run(
        ["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        if f"--run-dir {home}/" in command and alive(int(pid)):
            with suppress(ProcessLookupError):  # it may have ended by itself since
                os.kill(int(pid), signal.SIGTERM)
