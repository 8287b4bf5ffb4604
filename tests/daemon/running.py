"""A daemon in this process, with real workers whose engine is the fake one."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from daemon.app import Daemon, Stop, open_daemon
from daemon.configuration import Machine
from daemon.identity import boot_id
from daemon.kernel import Answer
from daemon.pool import messages as m
from daemon.supervisor.launch import Launcher, worker_env
from daemon.wire import data as d
from daemon.wire.generation import open_generation
from daemon.wire.paths import Home, find_home
from daemon.wire.settings import PoolSettings, Settings, WorkerSettings
from launchd.activation import Inherited
from tests.fakes.engine import FakeConfig, write_fake_model

GB = 10**9
FAKE_WORKER = (sys.executable, "-I", "-m", "tests.fakes.worker")
MakeCommand = Callable[[int], m.ClientCommand]
PERSON = m.Cause(command="test", client="test", pid=1)


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A home whose socket paths are short enough."""
    with tempfile.TemporaryDirectory(prefix="mlxd-t-") as folder:
        yield find_home({"MLXD_HOME": folder, "HOME": folder}, sys.platform)


@asynccontextmanager
async def running_daemon(
    home: Home,
    budget_bytes: int = 10 * GB,
    inherited: Inherited | None = None,
    *,
    spare: bool = False,
) -> AsyncIterator[Daemon]:
    """The shipped daemon on ``home``; leaving the block is its crash."""
    launcher = Launcher(
        run_dir=home.run_dir,
        logs_dir=home.logs_dir,
        command=FAKE_WORKER,
        env=worker_env(os.environ, {}),
    )
    settings = Settings(pool=PoolSettings(memory=budget_bytes), worker=WorkerSettings(spare=spare))
    machine = Machine(boot_id(), 100 * GB)
    async with open_daemon(home, settings, launcher, machine, Stop(), inherited) as daemon:
        yield daemon


def fake_model(home: Home, name: str, config: FakeConfig | None = None) -> m.Option:
    """A model of kind "fake" that the pool can decide about."""
    folder = home.root / "models" / name
    if not folder.exists():
        write_fake_model(folder, config)
    model = m.Model(
        key=str(folder),
        name=name,
        path=str(folder),
        kind="fake",
        capabilities=("text",),
        weights_bytes=1 << 20,
        kv_token_bytes=8,
        context_tokens=4096,
    )
    return m.Option(model=model)


def pid_of(daemon: Daemon, worker: str) -> int | None:
    """The process that the daemon holds for a worker's."""
    seat = daemon.supervisor._seats.get(worker)
    return None if seat is None else seat.pid


class Asker:
    """Asks a daemon's kernel and waits for the terminal answer."""

    def __init__(self, daemon: Daemon) -> None:
        self._kernel = daemon.kernel

    async def load(self, option: m.Option) -> Answer:
        return await self._answer(
            lambda ticket: m.Load(ticket=ticket, client="test", options=(option,))
        )

    async def acquire(self, option: m.Option) -> Answer:
        deadline_at_ms = self._kernel.now_ms() + 60_000
        return await self._answer(
            lambda ticket: m.Acquire(
                ticket=ticket, client="test", options=(option,), deadline_at_ms=deadline_at_ms
            )
        )

    async def unload(self, option: m.Option) -> Answer:
        return await self._answer(
            lambda ticket: m.Unload(
                ticket=ticket, client="test", key=option.model.key, name=option.model.name
            )
        )

    async def _answer(self, make: MakeCommand) -> Answer:
        answered = anyio.Event()
        got: list[Answer] = []

        def on_answer(answer: Answer) -> None:
            if not isinstance(answer, m.AnswerProgress):
                got.append(answer)
                answered.set()

        await self._kernel.send(make(self._kernel.ticket(on_answer)), PERSON)
        with anyio.fail_after(60):
            await answered.wait()
        return got[0]


async def generate(home: Home, granted: Answer, prompt: str, max_tokens: int = 8) -> str:
    """One request at the worker that was granted; the text that came back."""
    assert isinstance(granted, m.AnswerGranted)
    message = d.ChatMessage(role="user", parts=(d.TextPart(text=prompt),))
    request = d.Generate(lease=granted.lease, messages=(message,), max_tokens=max_tokens)
    socket = str(home.worker_socket(granted.worker))
    async with open_generation(socket, request, "test") as generation:
        return "".join([delta.text async for delta in generation])
