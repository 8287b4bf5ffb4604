"""What launchd and systemd do alike: keep sockets, start a program, and start it again."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec

PASS_SOCKETS: Final = Path(__file__).parents[2] / "launchd" / "pass_sockets.py"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a plist or a pair of units says, read as its manager reads it."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    sockets: dict[str, str]
    log: str
    start_at_load: bool
    kill_group: bool
    end_s: float
    throttle_s: float


class Listener(msgspec.Struct, frozen=True):
    """A socket that the manager made; ``path`` is empty for TCP."""

    name: str
    sock: socket.socket
    path: str


def listen(name: str, address: str) -> Listener:
    """Bind a path, or HOST:PORT, as managers do: what lies at the path is replaced."""
    if address.startswith("/"):
        Path(address).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(address)
        Path(address).chmod(0o600)
        path = address
    else:
        host, _, port = address.rpartition(":")
        sock, path = socket.create_server((host, int(port))), ""
    sock.listen(128)
    return Listener(name, sock, path)


class Job:
    """A loaded program: waiting for a reason to run, or running."""

    def __init__(self, spec: Spec, library: str | None, tasks: anyio.abc.TaskGroup) -> None:
        self.spec = spec
        self.leaving = False
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.listeners = [listen(name, address) for name, address in spec.sockets.items()]
        self._library = library
        self._asked = anyio.Event()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._gone = anyio.Event()
        if spec.start_at_load:
            self._asked.set()
        tasks.start_soon(self._run)

    def start(self) -> None:
        """Without effect while it runs, also if it is about to end."""
        if self.process is None:
            self._asked.set()

    async def again(self) -> None:
        """End what runs, and start it; its sockets stay."""
        if self.kill(signal.SIGTERM):
            await self._gone.wait()
        self._asked.set()

    def kill(self, number: int) -> bool:
        """Whether there was somebody to send the signal to."""
        if self.process is None:
            return False
        self.process.send_signal(number)
        return True

    async def end(self) -> None:
        """SIGTERM, then wait, then SIGKILL; at last the sockets are closed and unlinked."""
        self.leaving = True
        if self.kill(signal.SIGTERM):
            with anyio.move_on_after(self.spec.end_s):
                await self._ended.wait()
            self.kill(signal.SIGKILL)
        self._scope.cancel()
        await self._ended.wait()
        self._close()

    def _close(self) -> None:
        for listener in self.listeners:
            listener.sock.close()
            if listener.path:
                Path(listener.path).unlink(missing_ok=True)

    async def _run(self) -> None:
        try:
            with self._scope:
                while not self.leaving:
                    await self._reason_to_run()
                    self._asked = anyio.Event()
                    if await self._live() != 0 and not self.leaving:
                        await anyio.sleep(self.spec.throttle_s)
                        self._asked.set()
        finally:
            self._ended.set()

    async def _reason_to_run(self) -> None:
        """Somebody connects, or the manager was asked."""
        async with anyio.create_task_group() as tasks:

            async def first(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]
                tasks.cancel_scope.cancel()

            tasks.start_soon(first, self._asked.wait)
            for listener in self.listeners:
                sock = listener.sock
                tasks.start_soon(first, lambda sock=sock: anyio.wait_readable(sock))

    async def _live(self) -> int:
        self.process = process = self._spawn()
        self.starts += 1
        with anyio.CancelScope(shield=True):
            code = await anyio.to_thread.run_sync(process.wait)
        self.process = None
        self._gone.set()
        self._gone = anyio.Event()
        if self.spec.kill_group:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return code

    def _spawn(self) -> subprocess.Popen[bytes]:
        with Path(self.spec.log).open("ab") as log:
            return subprocess.Popen(
                self._argv(),
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.sock.fileno() for listener in self.listeners],
                start_new_session=True,
                cwd="/",
            )

    def _argv(self) -> list[str]:
        if self._library is not None:
            return [*self.spec.argv]
        fds = [str(listener.sock.fileno()) for listener in self.listeners]
        names = ":".join(listener.name for listener in self.listeners)
        return [sys.executable, "-I", str(PASS_SOCKETS), names, *fds, "--", *self.spec.argv]

    def _environ(self) -> dict[str, str]:
        given = {"HOME": os.environ["HOME"], "USER": "ada", "LOGNAME": "ada", **self.spec.env}
        if self._library is not None:
            given["LD_PRELOAD"] = self._library
            given["ACTIVATE_SOCKETS"] = ",".join(
                f"{listener.name}={listener.sock.fileno()}" for listener in self.listeners
            )
        return given
