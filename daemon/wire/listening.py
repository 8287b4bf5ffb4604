"""Accepting connections without ever ending the program that does it."""

import errno
import logging
import socket
from typing import Final

import anyio

_PASSING: Final = frozenset({errno.ECONNABORTED, errno.EAGAIN, errno.EPROTO, errno.EINTR})
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE_S: Final = 1.0

_log: Final = logging.getLogger(__name__)


async def next_connection(listener: socket.socket) -> socket.socket:
    """The next connection of a non-blocking listener, itself non-blocking.

    A peer that has left again is passed over. When the process is out of descriptors
    the connection waits in the backlog until there is room; that is tried once a second,
    since nothing says when a descriptor is free.
    """
    while True:
        await anyio.wait_readable(listener)
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                _log.warning("connections wait: %s", error)
                await anyio.sleep(EXHAUSTED_PAUSE_S)
            elif error.errno not in _PASSING:
                raise
        else:
            sock.setblocking(False)
            return sock
