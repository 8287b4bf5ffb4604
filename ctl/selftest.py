"""``mlxctl doctor --selftest``: what no test elsewhere can show, tried on this very machine.

The list is what only a Mac can show. Where the same question has a meaning on another system
it is asked there, too; the rest is listed as skipped.
"""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Final

from ctl.app import App
from ctl.health import Check
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import format_bytes

END_S: Final = 90.0
"""A daemon that is told to end has a minute for it."""


def run_selftest(app: App) -> Iterator[Check]:
    """Try every item; what fails is said, and the next one is tried."""
    for name, (mac_only, attempt) in ITEMS.items():
        if mac_only and sys.platform != "darwin":
            yield Check(name=name, verdict="skipped", said="only a Mac can show this")
            continue
        try:
            yield Check(name=name, verdict="ok", said=attempt(app))
        except MlxdError as error:
            yield Check(name=name, verdict="bad", said=error.fault.message, fix=error.fault.hint)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was asked for
            yield Check(name=name, verdict="bad", said=f"{type(error).__name__}: {error}")


def _flush(app: App) -> str:
    place = next(p for p in (app.home.root, *app.home.root.parents) if p.exists())
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"x")
        file.flush()
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined, unused-ignore]
    return f"the disk at {place} flushes its own cache"


def _peer(_app: App) -> str:
    from daemon.wire.peer import peer_uid  # noqa: PLC0415

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        uid = peer_uid(ours)
    if uid != os.geteuid():
        raise MlxdError(Code.INTERNAL, f"the system names user {uid}, and this is {os.geteuid()}")
    return f"the other end of a socket is user {uid}"


def _exits(_app: App) -> str:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    queue = select.kqueue()  # type: ignore[attr-defined, unused-ignore]
    wanted = select.kevent(  # type: ignore[attr-defined, unused-ignore]
        process.pid,
        filter=select.KQ_FILTER_PROC,  # type: ignore[attr-defined, unused-ignore]
        flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,  # type: ignore[attr-defined, unused-ignore]
        fflags=select.KQ_NOTE_EXIT,  # type: ignore[attr-defined, unused-ignore]
    )
    try:
        queue.control([wanted], 0)
        process.communicate(b"\n")
        if not queue.control(None, 1, 10):
            raise MlxdError(Code.INTERNAL, "the end of a process was not told within 10 s")
    finally:
        queue.close()
    return "the end of a process is told at once"


def _activation(_app: App) -> str:
    from launchd.activation import from_launchd  # noqa: PLC0415

    if from_launchd("mlxd") is not None:
        raise MlxdError(Code.INTERNAL, "launchd hands sockets to a program that it did not start")
    return "launch_activate_socket is there, and knows that launchd did not start this"


def _session(_app: App) -> str:
    domain = f"gui/{os.getuid()}"
    asked = subprocess.run(["/bin/launchctl", "print", domain], capture_output=True, check=False)
    if asked.returncode:
        raise MlxdError(
            Code.CONFLICT,
            f"launchctl knows no {domain} (exit {asked.returncode})",
            hint="log in at the screen once: a service needs a login session",
        )
    return f"{domain} is there"


def _metal(_app: App) -> str:
    from ctl.probing import probe_worker  # noqa: PLC0415

    facts = probe_worker()
    working_set = facts["recommended_working_set_bytes"]
    if not working_set:
        raise MlxdError(Code.INTERNAL, f"MLX names no working set on {facts['device_name']}")
    share = f"{format_bytes(working_set)} of {format_bytes(facts['memory_size'])}"
    return f"{facts['device_name']} recommends to use {share}"


def _pressure(_app: App) -> str:
    asked = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    level = int(asked.stdout)
    if level not in {1, 2, 4}:
        raise MlxdError(Code.INTERNAL, f"the system says pressure {level}, and not 1, 2 or 4")
    return f"level {level} of 1, 2 and 4"


def _awake(_app: App) -> str:
    process = subprocess.Popen(["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())])
    asserted = subprocess.run(
        ["/usr/bin/pmset", "-g", "assertions"], capture_output=True, check=True, text=True
    )
    process.terminate()
    process.wait(10)
    if f"pid {process.pid}(caffeinate)" not in asserted.stdout:
        raise MlxdError(Code.INTERNAL, "pmset does not list the assertion that caffeinate holds")
    return "caffeinate keeps the machine awake while requests run"


def _life(app: App) -> str:
    """A daemon of its own: a model, an answer, a kill, an adoption, an unload."""
    from ctl.answer import ask as ask_model  # noqa: PLC0415
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.conversation import Conversation  # noqa: PLC0415

    name = "mlxd/glimpse"
    with tempfile.TemporaryDirectory(prefix="mlxd-", dir="/tmp") as folder:
        own = App({**app.environ, "MLXD_HOME": folder}, StringIO(), StringIO())
        with _daemon(own) as daemon:
            loaded = talk(own, lambda control: control.load(name))
            chat = Conversation(settings={"temperature": 0.0, "max_tokens": 8})
            chat.ask("hello")
            said = ask_model(own, name, chat.request(), needs=chat.needs, deadline_ms=60_000)
            before = _worker_pid(own)
            daemon.kill()
            daemon.wait()
        with _daemon(own):
            after = _worker_pid(own)
            freed = talk(own, lambda control: control.unload(name)).freed_bytes
            if warnings := _status(own).warnings:  # memory that did not come back, for one
                raise MlxdError(Code.INTERNAL, "; ".join(warnings))
    if before != after:
        raise MlxdError(Code.INTERNAL, f"worker {before} was not adopted: there is {after}")
    tokens = said.done.usage.completion_tokens
    return (
        f"loaded in {loaded.load_ms} ms, {tokens} tokens, adopted after a kill, "
        f"{format_bytes(freed)} given back"
    )


@contextmanager
def _daemon(own: App) -> "Iterator[subprocess.Popen[bytes]]":
    """A daemon on the home of ``own``, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "daemon"],
        env={**own.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise MlxdError(Code.INTERNAL, f"a daemon does not start (exit {process.wait()})")
        yield process
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(END_S)


def _worker_pid(own: App) -> int | None:
    models = _status(own).models
    return models[0].pid if models else None


def _status(own: App) -> c.StatusView:
    from ctl.quick import ask  # noqa: PLC0415

    return ask(own, c.GetStatus(id=1), c.StatusView)


ITEMS: Final[dict[str, tuple[bool, Callable[[App], str]]]] = {
    "disk flush": (True, _flush),
    "peer": (False, _peer),
    "exits": (True, _exits),
    "activation": (True, _activation),
    "session": (True, _session),
    "metal": (True, _metal),
    "pressure": (True, _pressure),
    "awake": (True, _awake),
    "life": (False, _life),
}
"""What is tried, in this order: whether only a Mac has it, and the attempt."""
