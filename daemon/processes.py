"""Processes as their supervisor sees them: since when, how large, and gone."""

import os
import select
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import anyio

from daemon.identity import process_start_time


def start_time(pid: int) -> float | None:
    """When process ``pid`` was started, as :mod:`daemon.identity` tells it; None if gone."""
    try:
        return process_start_time(pid)
    except ProcessLookupError:
        return None


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it cannot be read."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError):
            pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        return 0
    asked = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False, text=True
    )
    return int(asked.stdout) * 1024 if asked.stdout.strip() else 0


async def wait_exit(pid: int) -> None:
    """Wait until process ``pid``, a child or not, has ended. No polling."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)
        return
    with closing(select.kqueue()) as queue:
        event = select.kevent(
            pid,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        try:
            queue.control([event], 0)
        except ProcessLookupError:
            return
        await anyio.wait_readable(queue.fileno())
