"""The only way the log touches files: synchronous, narrow, and therefore replaceable.

The simulation puts a disk that loses, tears and reorders in its place; both pass one
contract suite (``tests/daemon/eventlog/test_disk.py``).
"""

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

BLOCK_BYTES: Final = 1 << 16
"""What is read at once where all of a file is."""

OpenMode = Literal["create", "existing", "replace"]


class DiskFile(Protocol):
    """A file open for writing."""

    def write(self, offset: int, data: bytes) -> int:
        """Write at ``offset``; how many bytes were taken, which may be fewer than all."""
        ...

    def sync(self) -> None:
        """Return when what was written would survive a loss of power."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes; durable after the next :meth:`sync`."""
        ...

    def close(self) -> None: ...


class DiskLock(Protocol):
    """Held until released, or until the process is gone."""

    def release(self) -> None: ...


class Disk(Protocol):
    """Files as the log needs them. Every failure is an ``OSError`` with its errno."""

    def make_folder(self, folder: Path) -> None:
        """Make ``folder`` (and its parents) for its owner alone; fine if it is there."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Names of the entries of ``folder``, sorted; none if it does not exist."""
        ...

    def size(self, path: Path) -> int: ...

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file."""
        ...

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        """Open for writing: a new file, one that is there, or either, emptied."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, in place of what had it."""
        ...

    def remove(self, path: Path) -> None: ...

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in ``folder`` would survive a loss of power."""
        ...

    def lock(self, folder: Path) -> DiskLock | None:
        """The right to write in ``folder``; None while another holds it."""
        ...


def write_all(file: DiskFile, offset: int, data: bytes) -> None:
    """Write all of ``data``, however many calls it takes.

    Raises:
        OSError: Some of it may be in the file.
    """
    view = memoryview(data)
    while view:
        taken = file.write(offset, bytes(view))
        if not taken:
            raise OSError(errno.ENOSPC, "the disk took nothing")
        offset += taken
        view = view[taken:]


def put_file(disk: Disk, path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``, durably; its folder is the caller's to sync.

    Raises:
        OSError: And then the file is taken away again, as far as the disk allows.
    """
    file = disk.open(path, "replace")
    try:
        write_all(file, 0, data)
        file.sync()
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            disk.remove(path)
        raise
    finally:
        file.close()


class Barrier:
    """Flushes a descriptor as far as the system can: to the platter, not the drive's cache.

    On macOS ``fsync`` leaves data in the drive's cache (fsync(2)); ``F_FULLFSYNC`` does
    not, but some file systems refuse it. The first refusal is said once, and from then
    on the weaker call is used.
    """

    def __init__(self, strong: Callable[[int], None], weak: Callable[[int], None]) -> None:
        self._strong = strong
        self._weak = weak
        self._refused = False

    def __call__(self, descriptor: int) -> None:
        if not self._refused:
            try:
                return self._strong(descriptor)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                    raise
                self._refused = True
                structlog.get_logger().warning(
                    "disk.sync_weaker",
                    reason=error.strerror,
                    meaning="a loss of power may cost the last records",
                )
        return self._weak(descriptor)


def _flush(descriptor: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:  # flushes the size too, since reading the data back depends on it (fdatasync(2))
        os.fdatasync(descriptor)


class _OsFile:
    def __init__(self, descriptor: int, barrier: Barrier) -> None:
        self._descriptor = descriptor
        self._barrier = barrier

    def write(self, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def sync(self) -> None:
        self._barrier(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


class _FolderLock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class OsDisk:
    """The real disk."""

    def __init__(self) -> None:
        self._barrier = Barrier(_flush, os.fsync)

    def make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(folder.parent)

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
        except FileNotFoundError:
            return []

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def read(self, path: Path, offset: int, length: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_all(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def open(self, path: Path, mode: OpenMode) -> DiskFile:
        flags = {
            "create": os.O_CREAT | os.O_EXCL,
            "existing": 0,
            "replace": os.O_CREAT | os.O_TRUNC,
        }[mode]
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        return _OsFile(descriptor, self._barrier)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._barrier(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, folder: Path) -> DiskLock | None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return _FolderLock(descriptor)


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    have = len(data)
    while have < length and data:
        data = os.pread(descriptor, length - have, offset + have)
        parts.append(data)
        have += len(data)
    return b"".join(parts)
