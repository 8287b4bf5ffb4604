"""A worker that does not know its name yet: it imports everything, and waits to be told.

It hears which worker it is on its standard input, and ends with the daemon that started it,
which is when that input ends.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

from daemon.worker.priority import in_background

ImportLibraries = Callable[[bool], None]
"""Imports what takes longest, ahead of need; True where any kind of model may come."""


def wait_for_name(import_libraries: ImportLibraries, log_level: str) -> str:
    """The id of the worker that this process is to be; "" if none is wanted any more.

    A daemon that ends while this imports may have given it a name: its successor knows of no
    such worker, and begins the load again.

    Standard output is as it was when this returns: until then it is standard error.
    """
    daemon_pid = os.getppid()
    out = os.dup(1)
    os.dup2(2, 1)
    in_background(partial(import_libraries, True))
    # After the libraries, which take longest; a worker imports these when it has its socket.
    import anyio.lowlevel  # noqa: PLC0415
    import structlog  # noqa: PLC0415

    from daemon import version  # noqa: F401, PLC0415
    from daemon.wire.logs import set_up_logging  # noqa: PLC0415
    from daemon.worker import runner, serving  # noqa: F401, PLC0415

    anyio.run(anyio.lowlevel.checkpoint)  # which is when anyio imports the most of itself
    set_up_logging(log_level, worker="")
    structlog.get_logger().info("spare.waiting")
    worker = sys.stdin.readline().strip()
    os.dup2(out, 1)
    os.close(out)
    return worker if os.getppid() == daemon_pid else ""
