"""Nonsense on both sockets of a real service: nobody falls over, grows, or makes others wait."""

import random
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control, open_control
from daemon.wire.generation import open_generation
from tests.e2e.frames import control_frames, data_frames, hello
from tests.e2e.service import Service, config_toml, running_service
from tests.e2e.vision_models import BUNDLED

pytestmark = pytest.mark.e2e

ROUND = 1000
GROWTH_BYTES_MAX = 48 << 20
"""What a process may have grown by, after a first round: allocators keep some."""

Frames = Callable[[random.Random], Iterator[bytes]]


class Target(msgspec.Struct, frozen=True):
    """A socket, the process behind it, and what it is sent.

    Attributes:
        burst: Frames on one connection, if the other side lets it live so long; of a worker's
            the first one counts, the second comes while that is answered.
    """

    path: str
    pid: int
    frames: Frames
    burst: int

    def rss_bytes(self) -> int:
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.pid)], check=True, capture_output=True
        )
        return int(told.stdout) * 1024


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Service]:
    """A service of its own: what this does to a pool no other test should meet."""
    with running_service(config_toml({})) as service:
        yield service


def converse(path: str, rng: random.Random, frames: Iterator[bytes]) -> None:
    """One connection: a greeting, nonsense, no more; everything that is answered is read."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(hello(rng))
            for frame in frames:
                sock.sendall(frame)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while sock.recv(1 << 16):
                continue


def nonsense(target: Target, seed: int, count: int) -> None:
    rng = random.Random(seed)
    frames = target.frames(rng)
    for _ in range(count // target.burst):
        converse(target.path, rng, islice(frames, target.burst))


@asynccontextmanager
async def at_work(service: Service) -> AsyncIterator[tuple[Control, c.Granted, int]]:
    """A client that behaves, with a lease, and the worker's process."""
    async with open_control(service.socket, "good") as control, control.lease(BUNDLED) as granted:
        status = await control.status()
        (pid,) = [model.pid for model in status.models if model.name == BUNDLED]
        assert pid is not None
        yield control, granted, pid


async def answer(granted: c.Granted) -> str:
    talk = (d.ChatMessage(role="user", parts=(d.TextPart("Hello!"),)),)
    request = d.Generate(lease=granted.lease, messages=talk, sampling=d.Sampling(temperature=0))
    async with open_generation(granted.socket, request, "good") as generation:
        return "".join([delta.text async for delta in generation])


@pytest.mark.anyio
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "count", [pytest.param(2_000), pytest.param(100_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("socket_of", ["daemon", "worker"])
async def test_nonsense_harms_nobody(fuzzed: Service, socket_of: str, count: int) -> None:
    async with at_work(fuzzed) as (control, granted, worker_pid):
        target = Target(fuzzed.socket, fuzzed.daemon_pid, control_frames, 40)
        if socket_of == "worker":
            target = Target(granted.socket, worker_pid, data_frames, 2)
        said = await answer(granted)
        await anyio.to_thread.run_sync(nonsense, target, 0, ROUND)
        before = target.rss_bytes()
        for seed in range(1, count // ROUND):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, nonsense, target, seed, ROUND)
                assert await answer(granted) == said
                assert (await control.status()).pid == fuzzed.daemon_pid
        grown = target.rss_bytes() - before
        assert grown < GROWTH_BYTES_MAX, f"{grown >> 20} MiB more"
        assert await answer(granted) == said
        status = await control.status()
        assert [(m.name, m.pid) for m in status.models] == [(BUNDLED, worker_pid)]
    assert "Traceback" not in log_of(fuzzed, socket_of)


def log_of(service: Service, socket_of: str) -> str:
    if socket_of == "daemon":
        return (service.home / "daemon.log").read_text("utf-8")
    return "".join(path.read_text("utf-8") for path in Path(service.home).rglob("w-*.log"))
