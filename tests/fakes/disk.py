"""A disk in memory that fails as disks do, from a seed.

What is written is live at once and durable after a sync. A loss of power keeps what is
durable and, of the rest, whatever chance leaves: sectors of 512 bytes in any
combination, sizes and names in the order in which they were changed.
"""

import errno
import os
from pathlib import Path
from random import Random
from typing import Final, Literal

import msgspec

from daemon.eventlog.disk import DiskFile, DiskLock, OpenMode

SECTOR_BYTES: Final = 512
Operation = Literal["open", "write", "truncate", "sync", "rename", "remove", "sync_folder"]


class Crash(BaseException):
    """The process ends here, between two operations."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often an operation fails, each as a probability."""

    short_write: float = 0.0
    no_space: float = 0.0
    write_error: float = 0.0
    sync_error: float = 0.0
    rename_error: float = 0.0


class _Inode:
    """One file's bytes: as everybody reads them, and as the platter has them."""

    def __init__(self, durable: bytes = b"") -> None:
        self.live = bytearray(durable)
        self.durable = durable
        self.pending: list[tuple[int, bytes] | int] = []  # writes, and sizes cut to

    def write(self, offset: int, data: bytes) -> None:
        _place(self.live, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        _resize(self.live, size)
        self.pending.append(size)

    def sync(self) -> None:
        kept = bytearray(self.durable)
        for operation in self.pending:  # what a failed sync forgot is not among them
            if isinstance(operation, int):
                _resize(kept, operation)
            else:
                _place(kept, *operation)
        self.durable = bytes(kept)
        self.pending.clear()

    def survivor(self, random: Random) -> bytes:
        """What a loss of power may leave of the file."""
        kept = bytearray(self.durable)
        sized = random.randint(0, len(self.pending))
        share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        size = len(kept)
        for number, operation in enumerate(self.pending):
            if isinstance(operation, int):
                if number < sized:
                    size = operation
                    _resize(kept, operation)
                continue
            offset, data = operation
            if number < sized:
                size = max(size, offset + len(data))
            for start, piece in _sectors(offset, data):
                if random.random() < share:
                    _place(kept, start, piece)
        _resize(kept, size)
        return bytes(kept)


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    pieces = []
    done = 0
    while done < len(data):
        take = min(SECTOR_BYTES - (offset + done) % SECTOR_BYTES, len(data) - done)
        pieces.append((offset + done, data[done : done + take]))
        done += take
    return pieces


def _place(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


class FaultyDisk:
    """See the module. ``operations`` counts what changes the disk.

    Args:
        crash_at: The operation before which :class:`Crash` is raised.
        capacity_bytes: Above it, writes find no space.
    """

    def __init__(
        self,
        random: Random,
        *,
        faults: Faults | None = None,
        crash_at: int | None = None,
        capacity_bytes: int | None = None,
    ) -> None:
        self.random = random
        self.faults = faults or Faults()
        self.crash_at = crash_at
        self.capacity_bytes = capacity_bytes
        self.operations = 0
        self.fail_next: dict[Operation, int] = {}
        self._folders: set[Path] = set()
        self._live: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._renamed: dict[Path, list[tuple[Path, _Inode | None]]] = {}
        self._locked: set[Path] = set()

    # --- what happens to it -------------------------------------------------------

    def after_power_loss(self) -> "FaultyDisk":
        """The disk that the next boot finds, without faults."""
        new = FaultyDisk(self.random)
        new._folders = set(self._folders)
        names = dict(self._durable)
        for changes in self._renamed.values():
            for path, inode in changes[: self.random.randint(0, len(changes))]:
                _rename(names, path, inode)
        survivors = {id(inode): _Inode(inode.survivor(self.random)) for inode in names.values()}
        new._live = {path: survivors[id(inode)] for path, inode in names.items()}
        new._durable = dict(new._live)
        return new

    def after_kill(self) -> "FaultyDisk":
        """The disk as the next process finds it: nothing is lost, locks are free."""
        self._locked.clear()
        self.crash_at = None
        self.fail_next.clear()
        return self

    def contents(self, path: Path) -> bytes:
        """What everybody reads now."""
        return bytes(self._live[path].live)

    def put(self, path: Path, data: bytes) -> None:
        """Place a file there, durably, past every fault."""
        self._folders.update(path.parents)
        self._live[path] = self._durable[path] = _Inode(data)

    def _step(self, operation: Operation) -> None:
        self.operations += 1
        if self.operations == self.crash_at:
            raise Crash
        number = self.fail_next.pop(operation, None)
        if number is not None:
            raise _error(number)

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    # --- the protocol -------------------------------------------------------------

    def make_folder(self, folder: Path) -> None:
        self._folders.update((folder, *folder.parents))

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self._live if path.parent == folder)

    def size(self, path: Path) -> int:
        return len(self._inode(path).live)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        return bytes(self._inode(path).live[offset : offset + length])

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        self._step("open")
        self._check_folder(path.parent)
        if mode == "create" and path in self._live:
            raise _error(errno.EEXIST)
        if mode == "existing":
            return _File(self, self._inode(path))
        if path not in self._live:
            self._name(path, _Inode())
        inode = self._live[path]
        if inode.live:
            inode.truncate(0)
        return _File(self, inode)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        if self._chance(self.faults.rename_error):
            raise _error(errno.EIO)
        inode = self._inode(source)
        # one change, so that no crash leaves both names or neither
        del self._live[source]
        self._live[target] = inode
        self._renamed.setdefault(target.parent, []).append((target, inode))

    def remove(self, path: Path) -> None:
        self._step("remove")
        self._inode(path)
        self._name(path, None)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder")
        self._check_folder(folder)
        if self._chance(self.faults.sync_error):
            raise _error(errno.EIO)
        for path, inode in self._renamed.pop(folder, []):
            _rename(self._durable, path, inode)

    def lock(self, folder: Path) -> DiskLock | None:
        self._check_folder(folder)
        if folder in self._locked:
            return None
        self._locked.add(folder)
        return _Lock(self._locked, folder)

    # --- inside -------------------------------------------------------------------

    def _inode(self, path: Path) -> _Inode:
        if path not in self._live:
            raise _error(errno.ENOENT)
        return self._live[path]

    def _check_folder(self, folder: Path) -> None:
        if folder not in self._folders:
            raise _error(errno.ENOENT)

    def _name(self, path: Path, inode: _Inode | None) -> None:
        if inode is None:
            del self._live[path]
        else:
            self._live[path] = inode
        self._renamed.setdefault(path.parent, []).append((path, inode))

    def write(self, inode: _Inode, offset: int, data: bytes) -> int:
        """What an open file's write does."""
        self._step("write")
        if self._chance(self.faults.write_error):
            inode.write(offset, data[: self.random.randint(0, len(data))])
            raise _error(errno.EIO)
        if self._chance(self.faults.no_space):
            raise _error(errno.ENOSPC)
        if self._chance(self.faults.short_write):
            data = data[: self.random.randint(1, len(data))]
        if self.capacity_bytes is not None:
            used = sum(
                len(other.live) for other in {id(i): i for i in self._live.values()}.values()
            )
            room = self.capacity_bytes - used + max(0, len(inode.live) - offset)
            if room <= 0:
                raise _error(errno.ENOSPC)
            data = data[:room]
        inode.write(offset, data)
        return len(data)

    def truncate(self, inode: _Inode, size: int) -> None:
        """What an open file's truncate does."""
        self._step("truncate")
        inode.truncate(size)

    def sync(self, inode: _Inode) -> None:
        """What an open file's sync does; a failed one forgets what was pending."""
        self._step_sync(inode)
        inode.sync()

    def _step_sync(self, inode: _Inode) -> None:
        try:
            self._step("sync")
            if self._chance(self.faults.sync_error):
                raise _error(errno.EIO)
        except OSError:
            inode.durable = inode.survivor(self.random)
            inode.pending.clear()
            raise


def _rename(names: dict[Path, _Inode], path: Path, inode: _Inode | None) -> None:
    """Make ``path`` the only name of ``inode``; None takes the name away."""
    if inode is None:
        names.pop(path, None)
        return
    for other in [name for name, held in names.items() if held is inode]:
        del names[other]
    names[path] = inode


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class _File:
    def __init__(self, disk: FaultyDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, offset: int, data: bytes) -> int:
        return self._disk.write(self._inode, offset, data)

    def truncate(self, size: int) -> None:
        self._disk.truncate(self._inode, size)

    def sync(self) -> None:
        self._disk.sync(self._inode)

    def close(self) -> None:
        pass


class _Lock:
    def __init__(self, locked: set[Path], folder: Path) -> None:
        self._locked = locked
        self._folder = folder

    def release(self) -> None:
        self._locked.discard(self._folder)
