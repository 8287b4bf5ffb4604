"""The machine as the supervisor meets it: processes of workers, their locks and sockets."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
import msgspec

from daemon import processes
from daemon.identity import boot_id
from daemon.supervisor.launch import Launcher, wait_listening
from daemon.supervisor.link import open_link
from daemon.supervisor.readahead import Stopped, read_ahead
from daemon.wire import data as d
from daemon.wire.locks import Holder, is_held
from daemon.wire.paths import Home


class WorkerProcess(Protocol):
    """A child process, as :class:`subprocess.Popen` gives it."""

    returncode: int | None

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit code once it has ended, negative for a signal; None while it lives."""

    def wait(self) -> int:
        """The same, once :meth:`Host.wait_exit` has returned."""


class WorkerLink(Protocol):
    """A greeted connection to a worker."""

    @property
    def hosting(self) -> d.Hosting: ...

    async def send(self, command: d.LinkCommand) -> None: ...

    def reports(self) -> AsyncIterator[d.LinkReport]:
        """Reports until the connection ends."""


class Host(Protocol):
    """What :class:`OsHost` does on a real machine; a simulation does it in virtual time."""

    @property
    def boot_id(self) -> str: ...

    async def spawn(self, worker: str, *, yields: bool) -> WorkerProcess:
        """Start a worker's process.

        Args:
            yields: Its imports leave the processor to others.

        Raises:
            OSError: It could not be started.
        """

    async def spawn_spare(self, spare: str) -> WorkerProcess:
        """Start a process that is no worker yet, and ends when this one does.

        Raises:
            OSError: It could not be started.
        """

    async def hand_over(self, process: WorkerProcess, spare: str, worker: str) -> None:
        """Let a spare be ``worker`` from now on.

        Raises:
            OSError: It has ended.
        """

    def let_go(self, process: WorkerProcess) -> None:
        """Close what ties a spare that was not handed over to this process."""

    async def wait_listening(self, process: WorkerProcess) -> None:
        """Wait until it has its lock and listens.

        Raises:
            MlxdError: ``worker_failed``: it never did.
        """

    def open_link(self, worker: str, generation: int) -> AbstractAsyncContextManager[WorkerLink]:
        """Dial a worker as its daemon: see :func:`daemon.supervisor.link.open_link`."""

    async def is_held(self, worker: str) -> bool:
        """Whether a living process holds the worker's lock."""

    def holder(self, worker: str) -> int | None:
        """The pid that the lock file names; true while the lock is held. None: it says none."""

    def workers(self) -> list[str]:
        """Every worker that has left a lock file, alive or not."""

    def start_time(self, pid: int) -> float | None:
        """When a process began, None once it is gone; guards against pid reuse."""

    def wait_exit(self, pid: int) -> Awaitable[None]:
        """Wait until a process is gone."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal; a process that is gone already is fine."""

    async def read_ahead(self, folder: Path, stopped: Stopped) -> None:
        """Get a folder's weights into the page cache, as far as there is room for them.

        Raises:
            OSError: A file cannot be read.
            MlxdError: The folder cannot be read.
        """

    def remove_files(self, worker: str) -> None:
        """Take away the socket and lock file of a worker that is gone."""


class OsHost:
    """The real thing: one folder of locks and sockets, and a launcher."""

    def __init__(self, home: Home, launcher: Launcher) -> None:
        self.boot_id = boot_id()
        self._home = home
        self._launcher = launcher

    async def spawn(self, worker: str, *, yields: bool) -> WorkerProcess:
        return await anyio.to_thread.run_sync(self._launcher.spawn, worker, yields)

    async def spawn_spare(self, spare: str) -> WorkerProcess:
        return await anyio.to_thread.run_sync(self._launcher.spawn_spare, spare)

    async def hand_over(self, process: WorkerProcess, spare: str, worker: str) -> None:
        assert isinstance(process, subprocess.Popen), "it came from spawn_spare"
        self._launcher.hand_over(process, spare, worker)

    def let_go(self, process: WorkerProcess) -> None:
        assert isinstance(process, subprocess.Popen), "it came from spawn_spare"
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if process.returncode is None:
            process.returncode = 0  # nobody waits for it: Popen must not complain

    async def wait_listening(self, process: WorkerProcess) -> None:
        assert isinstance(process, subprocess.Popen), "it came from spawn"
        await wait_listening(process)

    def open_link(self, worker: str, generation: int) -> AbstractAsyncContextManager[WorkerLink]:
        return open_link(self._home.worker_socket(worker), generation)

    async def is_held(self, worker: str) -> bool:
        lock = self._home.worker_lock(worker)
        return await anyio.to_thread.run_sync(is_held, lock)

    def holder(self, worker: str) -> int | None:
        try:
            line = self._home.worker_lock(worker).read_bytes()
            return msgspec.json.decode(line, type=Holder).pid
        except (OSError, msgspec.DecodeError):
            return None  # gone by now, or killed before it wrote

    def workers(self) -> list[str]:
        locks = sorted(self._home.run_dir.glob("w-*.lock"))
        return [lock.stem.removeprefix("w-") for lock in locks]

    def start_time(self, pid: int) -> float | None:
        return processes.start_time(pid)

    def wait_exit(self, pid: int) -> Awaitable[None]:
        return processes.wait_exit(pid)

    def signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    async def read_ahead(self, folder: Path, stopped: Stopped) -> None:
        await anyio.to_thread.run_sync(read_ahead, folder, stopped, abandon_on_cancel=True)

    def remove_files(self, worker: str) -> None:
        for path in (self._home.worker_socket(worker), self._home.worker_lock(worker)):
            path.unlink(missing_ok=True)
