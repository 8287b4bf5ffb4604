"""Other servers on the same model folder: ``mlx_lm.server`` and ``mlx_vlm.server``."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen

from benchmarks.bench import Bench
from benchmarks.client import Server, user
from benchmarks.processes import child_environ, started
from benchmarks.sse import BadAnswer

START_TIMEOUT_S = 120.0


class PeerFailed(Exception):
    """A peer did not start or never answered; the message is its log."""


@asynccontextmanager
async def running_lm_server(bench: Bench, model: Path) -> AsyncIterator[Server]:
    """``mlx_lm.server`` with its own defaults, which decode up to 32 requests at once."""
    port = _free_port()
    command = ["mlx_lm.server", "--model", str(model), "--log-level", "WARNING"]
    async with _running(bench, "mlx_lm.server", command, port, None) as server:
        yield server


@asynccontextmanager
async def running_vlm_server(bench: Bench, model: Path) -> AsyncIterator[Server]:
    """``mlx_vlm.server`` with its own defaults; it serves text models too."""
    port = _free_port()
    command = ["mlx_vlm.server", "--model", str(model), "--log-level", "WARNING"]
    async with _running(bench, "mlx_vlm.server", command, port, str(model)) as server:
        yield server


@asynccontextmanager
async def _running(
    bench: Bench, name: str, command: list[str], port: int, model: str | None
) -> AsyncIterator[Server]:
    log = bench.log_of(name)
    line = [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)]
    with started(line, log, child_environ(bench.blas_env)) as process:
        server = Server(name, port, model, {"server": process.pid})
        await _until_it_answers(bench, server, process, log)
        yield server


async def _until_it_answers(bench: Bench, server: Server, process: Popen[bytes], log: Path) -> None:
    """A foreign server says nothing when it is ready: ask until it answers."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await server.ask(user(bench.prompts(1)[0]), 4)
        except (OSError, BadAnswer) as error:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise PeerFailed(f"{server.name}: {error}\n{_last_words(log)}") from error
            await asyncio.sleep(0.2)
        else:
            return


def _last_words(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-4000:]


def _free_port() -> int:
    """A port that nobody has now; these servers cannot be given a bound socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
