"""A worker's lock and socket in the runtime directory.

The lock comes first and is held for life: whoever holds it may unlink a socket of that
name, and the daemon takes "locked" for "alive". The lock file says who that is.
"""

import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from daemon.identity import boot_id, process_start_time
from daemon.wire.locks import AlreadyRunning, take

SOCKET_PATH_BYTES_MAX: Final = 103
"""macOS holds 104 bytes with the NUL in ``sockaddr_un.sun_path``; asserted everywhere."""

BACKLOG: Final = 256


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The one JSON line in a worker's lock file.

    Attributes:
        start_time: As :func:`~daemon.identity.process_start_time` gives it.
        boot_id: Changes with every boot of the machine.
    """

    worker: str
    pid: int
    start_time: float
    boot_id: str


class Claim:
    """The lock that is held and the socket that listens."""

    def __init__(self, lock_fd: int, lock_path: Path, socket_path: Path) -> None:
        self._lock_fd = lock_fd
        self._lock_path = lock_path
        self._socket_path = socket_path
        self.listener = _listen(socket_path)

    def release(self) -> None:
        """Remove socket and lock file, for an orderly exit.

        The lock itself is held until the process is gone, which is when its memory is.
        """
        self.listener.close()
        self._socket_path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)


def claim(worker: str, run_dir: Path) -> Claim:
    """Take the lock of ``worker`` and listen on its socket.

    Raises:
        AlreadyRunning: Somebody else holds the lock.
        OSError: The directory cannot be used, or the socket's path is too long.
    """
    socket_path = run_dir / f"w-{worker}.sock"
    _check_length(socket_path)
    lock_path = run_dir / f"w-{worker}.lock"
    lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not take(lock_fd):
        os.close(lock_fd)
        raise AlreadyRunning(f"{lock_path} is held by another process")
    pid = os.getpid()
    holder = Holder(worker=worker, pid=pid, start_time=process_start_time(pid), boot_id=boot_id())
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, msgspec.json.encode(holder) + b"\n", 0)
    return Claim(lock_fd, lock_path, socket_path)


def _check_length(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        raise OSError(
            f"{path} is {size} bytes long, and a socket's path may have "
            f"{SOCKET_PATH_BYTES_MAX}; use a shorter runtime directory"
        )


def _listen(path: Path) -> socket.socket:
    """Bind with mode 0600 from the first moment, then listen."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
