"""Listening sockets that the service manager made: launchd's and systemd's behind one call."""

import ctypes
import errno
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon.wire.errors import Code, MlxdError

CONTROL_SOCKET: Final = "control"
HTTP_SOCKET: Final = "http"

_FIRST_FD: Final = 3
"""``SD_LISTEN_FDS_START`` of sd_listen_fds(3)."""


class Inherited(msgspec.Struct, frozen=True):
    """Sockets that a service manager made for this process; they listen already.

    They belong to the manager: close them, but never unlink or bind them again, or the
    next start would be handed sockets that nobody can reach.

    Attributes:
        sockets: One or more; a host name can have IPv4 and IPv6 addresses.
        peers: Whom a connected Unix socket may name as its peer; None is this user alone.
            A client of a socket that launchd made can show as root.
    """

    sockets: tuple[socket.socket, ...]
    peers: frozenset[int] | None = None


def inherited_sockets(name: str, environ: Mapping[str, str]) -> Inherited | None:
    """The sockets that were made for this process under ``name``, listening already.

    Asked once a name: launchd refuses a second time. Children do not inherit them.

    Args:
        environ: ``os.environ``; only systemd's ``LISTEN_*`` are read.

    Returns:
        None if no service manager made any for this process: bind yourself.

    Raises:
        MlxdError: ``internal`` if a service manager runs this process and has no socket
            of that name for it: its configuration is not what this program expects.
    """
    peers: frozenset[int] | None
    if hasattr(ctypes.CDLL(None), "launch_activate_socket"):
        sockets, peers = from_launchd(name), frozenset({os.geteuid(), 0})
    else:
        sockets, peers = from_systemd(name, environ), None
    return None if sockets is None else Inherited(tuple(sockets), peers)


def from_launchd(name: str, library: str | None = None) -> list[socket.socket] | None:
    """``launch_activate_socket`` (launch.h): the return value is the error number.

    Args:
        library: Where the function is; None searches the running process, which on
            macOS has it from libSystem.

    Raises:
        MlxdError: As for :func:`inherited_sockets`.
    """
    functions = ctypes.CDLL(library)
    activate: Any = functions.launch_activate_socket
    activate.restype = ctypes.c_int
    activate.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
        ctypes.POINTER(ctypes.c_size_t),
    ]
    fds, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t(0)
    failure = activate(name.encode(), ctypes.byref(fds), ctypes.byref(count))
    if failure == errno.ESRCH:  # not started by launchd
        return None
    if failure != 0:
        raise _unexpected("launchd", name, f"{errno.errorcode.get(failure, failure)}")
    numbers = [fds[index] for index in range(count.value)]
    free: Any = functions.free
    free.argtypes = [ctypes.c_void_p]
    free.restype = None
    free(fds)
    return [_adopt(fd) for fd in numbers]


def from_systemd(name: str, environ: Mapping[str, str]) -> list[socket.socket] | None:
    """The protocol of sd_listen_fds(3): descriptors from 3 on, named in ``LISTEN_FDNAMES``.

    Raises:
        MlxdError: As for :func:`inherited_sockets`.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # none were passed, or they were meant for the process that started us
    passed = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if not passed.isdecimal() or len(names) != int(passed):
        problem = f"LISTEN_FDS={passed!r} does not go with LISTEN_FDNAMES={':'.join(names)!r}"
        raise _unexpected("systemd", name, problem)
    numbers = [_FIRST_FD + index for index, found in enumerate(names) if found == name]
    if not numbers:
        raise _unexpected("systemd", name, f"it passed {', '.join(names)}")
    return [_adopt(fd) for fd in numbers]


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _unexpected(manager: str, name: str, why: str) -> MlxdError:
    return MlxdError(
        Code.INTERNAL,
        f"{manager} started this program and gave it no socket named {name!r} ({why}); "
        "install the service again, so that its files and the program agree",
    )
