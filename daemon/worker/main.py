"""Start-up of a worker process, in the order that others rely on.

Lock, socket, ``ready``: only then anything that takes long is imported. After that line
standard output is standard error, because the MLX libraries print.

A spare does it the other way round: see :mod:`daemon.worker.spare`.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from daemon.wire.locks import AlreadyRunning
from daemon.worker.claim import Claim, claim
from daemon.worker.engines.base import Registry
from daemon.worker.inbox import Inbox, Terminate
from daemon.worker.priority import in_background
from daemon.worker.spare import ImportLibraries, wait_for_name

EXIT_TAKEN: Final = 73
"""Another process holds the worker's lock (EX_CANTCREAT, as for a second daemon)."""

LEVELS: Final = ("debug", "info", "warning", "error")


def main(argv: Sequence[str], registry: Registry, import_libraries: ImportLibraries) -> int:
    """Run one worker to its end.

    Args:
        argv: Without the program's name.
        registry: The engines that the daemon may ask for.
        import_libraries: Called while the worker waits for ``begin``; by a spare before it
            is a worker.

    Returns:
        0 after an orderly end, and for a spare that was not needed; 1 after
        ``load_failed``; 73 if the worker id is taken.
    """
    arguments = _parse(argv)
    if arguments.probe:
        probe = import_module("daemon.worker.engines.base").device_facts()
        sys.stdout.write(json.dumps(probe) + "\n")
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.spare:
        arguments.worker = wait_for_name(import_libraries, arguments.log_level)
        if not arguments.worker:
            return 0
    inbox = Inbox()
    signal.signal(signal.SIGTERM, lambda *_: inbox.put(Terminate()))
    try:
        claimed = claim(arguments.worker, arguments.run_dir)
    except AlreadyRunning as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_TAKEN
    os.write(1, b"ready\n")
    os.dup2(2, 1)
    try:
        return _serve(arguments, registry, import_libraries, inbox, claimed)
    finally:
        claimed.release()


def leave(code: int) -> NoReturn:
    """End the process now.

    With the MLX libraries loaded, Python takes more than half a second to take itself
    apart, and frees nothing that the process's end does not free at once.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(
    arguments: argparse.Namespace,
    registry: Registry,
    import_libraries: ImportLibraries,
    inbox: Inbox,
    claimed: Claim,
) -> int:
    # Imported here: structlog and anyio take longer than everything before "ready".
    from daemon.version import VERSION  # noqa: PLC0415
    from daemon.wire.logs import set_up_logging  # noqa: PLC0415
    from daemon.worker.runner import Runner  # noqa: PLC0415
    from daemon.worker.serving import Sockets  # noqa: PLC0415

    set_up_logging(arguments.log_level, worker=arguments.worker)
    sockets = Sockets(VERSION, claimed.listener, inbox)
    runner = Runner(arguments.worker, registry, inbox, sockets)
    sockets.start(runner.hosting())
    try:
        if arguments.yields:
            in_background(partial(import_libraries, False))
        elif not arguments.spare:
            import_libraries(False)
        return runner.run()
    finally:
        sockets.stop()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -I -m daemon.worker", description="One model in one process; started by mlxd."
    )
    parser.add_argument("--probe", action="store_true", help="print what MLX says of this machine")
    parser.add_argument("--worker", metavar="ID", default="")
    parser.add_argument("--spare", action="store_true", help="hear on stdin which worker to be")
    parser.add_argument("--yields", action="store_true", help="import at a low priority")
    parser.add_argument("--run-dir", type=Path, metavar="DIR")
    parser.add_argument("--log-level", choices=LEVELS, default="info")
    arguments = parser.parse_args(argv)
    named = arguments.worker or arguments.spare
    if not arguments.probe and not (named and arguments.run_dir):
        parser.error("--worker and --run-dir are needed")
    return arguments
