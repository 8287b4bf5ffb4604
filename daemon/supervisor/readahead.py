"""Weights on their way into the page cache while the workers before them still stop.

Advice only: the system reads by itself, and may leave parts out; the load waits for none of it
and is right without it.
Never more than the memory that is available, and nothing while the machine is short of it.
"""

import fcntl
import os
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Final

import msgspec
import structlog
from anyio.abc import TaskGroup

from daemon.models.folder import list_files
from daemon.pool.messages import Model
from daemon.supervisor.memory import available_bytes
from daemon.supervisor.pressure import ReadPressure, read_pressure
from daemon.wire.errors import MlxdError

LOOK_EVERY_BYTES: Final = 64 << 20
"""Memory and the load are looked at again after so much."""

LINUX_PIECE_BYTES: Final = 128 << 10
"""Linux takes no more of one advice than the device's read-ahead, 128 KiB unless it is set
otherwise, and drops the rest without a word (``force_page_cache_ra`` in mm/readahead.c)."""

DARWIN_PIECE_BYTES: Final = 2**31 - 1
"""``ra_count`` is an int."""

_F_RDADVISE: Final = 44
"""<sys/fcntl.h> of macOS; Python has no name for it."""

Advise = Callable[[int, int, int], None]
"""Ask the system to read of an open file, from an offset on, so many bytes; OSError."""

Stopped = Callable[[], bool]
"""Called from any thread; True ends it."""

_log = structlog.get_logger("readahead")


def advise_linux(file: int, offset: int, size: int) -> None:
    """By posix_fadvise(2). It returns once the reads are queued."""
    for at, piece in pieces(offset, size, LINUX_PIECE_BYTES):
        os.posix_fadvise(file, at, piece, os.POSIX_FADV_WILLNEED)


def advise_darwin(file: int, offset: int, size: int) -> None:
    """By ``F_RDADVISE``, see fcntl(2) of macOS."""
    for at, piece in pieces(offset, size, DARWIN_PIECE_BYTES):
        fcntl.fcntl(file, _F_RDADVISE, radvisory(at, piece))


def radvisory(offset: int, size: int) -> bytes:
    """``struct radvisory { off_t ra_offset; int ra_count; }`` with the padding at its end."""
    return struct.pack("@qi0q", offset, size)


def pieces(offset: int, size: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each part of a range, in order, none above ``piece_bytes``."""
    for at in range(offset, offset + size, piece_bytes):
        yield at, min(piece_bytes, offset + size - at)


class Machine(msgspec.Struct, frozen=True):
    """What reading ahead asks of the machine."""

    advise: Advise = advise_darwin if sys.platform == "darwin" else advise_linux
    available_bytes: Callable[[], int] = available_bytes
    read_pressure: ReadPressure = read_pressure


def read_ahead(folder: Path, stopped: Stopped, machine: Machine | None = None) -> int:
    """Let the system read a folder's weights; blocks for as long as it takes the advice.

    Returns:
        For how many bytes advice was given.

    Raises:
        OSError: A file cannot be opened, or its file system takes no advice.
        MlxdError: The folder cannot be read.
    """
    machine = machine or Machine()
    room_bytes, given_bytes = machine.available_bytes(), 0
    for shard in _shards(folder):
        with shard.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for offset, part in pieces(0, size, LOOK_EVERY_BYTES):
                short = given_bytes + part > room_bytes or machine.read_pressure() != "normal"
                if short or stopped():
                    return given_bytes
                machine.advise(file.fileno(), offset, part)
                given_bytes += part
    return given_bytes


def _shards(folder: Path) -> list[Path]:
    """Weights in the order of their names; a second copy in one file is left out."""
    return [
        folder / name
        for name in list_files(folder)
        if name.endswith(".safetensors") and name != "consolidated.safetensors"
    ]


class _Job:
    def __init__(self, model: Model) -> None:
        self.key, self.path = model.key, Path(model.path)
        self.over = Event()


class ReadsAhead:
    """At most one folder is read ahead at a time; of those that wait only the last counts.

    All of it ends with ``tasks``.
    """

    def __init__(self, read: Callable[[Path, Stopped], Awaitable[None]], tasks: TaskGroup) -> None:
        """Args: ``read`` as :meth:`daemon.supervisor.host.Host.read_ahead`."""
        self._read = read
        self._tasks = tasks
        self._now: _Job | None = None
        self._next: _Job | None = None

    def begin(self, model: Model) -> None:
        """Read ``model`` ahead, instead of whatever was to be; returns at once."""
        if self._now is None:
            self._now = _Job(model)
            self._tasks.start_soon(self._run)
        elif self._now.key == model.key and not self._now.over.is_set():
            self._next = None
        else:
            self._now.over.set()
            self._next = _Job(model)

    def end(self, model: Model) -> None:
        """Its worker reads for itself from now on."""
        for job in (self._now, self._next):
            if job is not None and job.key == model.key:
                job.over.set()

    async def _run(self) -> None:
        while self._now is not None:
            await self._carry_out(self._now)
            self._now, self._next = self._next, None

    async def _carry_out(self, job: _Job) -> None:
        try:
            if not job.over.is_set():
                await self._read(job.path, job.over.is_set)
        except (OSError, MlxdError) as error:
            _log.debug("readahead.failed", path=str(job.path), why=str(error))
        finally:
            job.over.set()  # a thread that is left behind ends
