"""A service manager as a process, until SIGTERM: ``python -m tests.fakes.managers KIND FOLDER``.

In FOLDER: ``socket``, where the stand-ins for launchctl and systemctl ask; ``state``, what
outlives a session; ``libactivate.so``, what gives launchd's sockets to its programs.
"""

import json
import os
import signal
import sys
from pathlib import Path

import anyio
import anyio.abc

from launchd.launchctl import agents_folder
from launchd.systemctl import units_folder
from tests.fakes.managers.launchd import Launchd
from tests.fakes.managers.systemd import Systemd


async def serve(kind: str, folder: Path) -> None:
    """Answer one question a connection; at SIGTERM end what runs, as a logout does."""
    async with anyio.create_task_group() as tasks:
        manager = make(kind, folder, tasks)
        listener = await anyio.create_unix_listener(folder / "socket")

        async def answer(client: anyio.abc.SocketStream) -> None:
            async with client:
                code, said = await _ask(manager, json.loads(await client.receive()))
                await client.send(json.dumps([code, said]).encode())

        async with listener, anyio.create_task_group() as asked:
            asked.start_soon(listener.serve, answer)
            print("ready", flush=True)
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            asked.cancel_scope.cancel()
        for job in list(manager.jobs.values()):
            await job.end()
        tasks.cancel_scope.cancel()


def make(kind: str, folder: Path, tasks: anyio.abc.TaskGroup) -> Launchd | Systemd:
    home = Path(os.environ["HOME"])
    if kind == "systemd":
        return Systemd(units_folder(os.environ, home), folder / "state", tasks)
    agents_folder(home).mkdir(parents=True, exist_ok=True)
    library = str(folder / "libactivate.so")
    return Launchd(f"gui/{os.getuid()}", folder / "state", library, tasks)


async def _ask(manager: Launchd | Systemd, asked: list[str]) -> tuple[int, str]:
    """What the tools ask, and what tests do to a session."""
    match asked:
        case ["test", "session", there]:
            manager.session = there == "yes"
            return 0, ""
        case ["test", "starts", name]:
            return 0, str(manager.jobs[name].starts)
        case ["test", "loaded"]:
            return 0, " ".join(sorted(manager.jobs))
    return await manager.ask(asked)


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1], Path(sys.argv[2]))
