"""Who is at the other end of a Unix socket: only the owner may speak."""

import os
import socket
import struct
import sys
from typing import Final

from daemon.wire.errors import Code, MlxdError

_UCRED: Final = struct.Struct("3i")
"""Linux ``struct ucred``: pid, uid, gid (unix(7), SO_PEERCRED)."""

_XUCRED: Final = struct.Struct("IIh2x16I")
"""macOS ``struct xucred``: version, uid, group count, padding, 16 groups (sys/ucred.h)."""

_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1


def peer_uid(sock: socket.socket) -> int:
    """The effective user id that the peer of a connected Unix socket had when it connected.

    Raises:
        OSError: The socket is not a connected Unix socket.
    """
    if sys.platform == "darwin":
        raw = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        return int(_XUCRED.unpack(raw)[1])
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def check_peer(sock: socket.socket, allowed: frozenset[int] | None = None) -> None:
    """Pass only peers whose user id is in ``allowed``; None allows this process's own.

    Raises:
        MlxdError: ``unauthorized`` for anybody else, or where the peer cannot be named.
    """
    allowed = frozenset({os.geteuid()}) if allowed is None else allowed
    try:
        uid = peer_uid(sock)
    except (OSError, struct.error) as error:
        raise MlxdError(
            Code.UNAUTHORIZED, f"the peer's user cannot be established ({error})"
        ) from error
    if uid not in allowed:
        raise MlxdError(
            Code.UNAUTHORIZED,
            f"user {uid} may not speak here; run the command as the user who runs mlxd",
        )
