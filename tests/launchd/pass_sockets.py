"""What a service manager does: binds, moves the sockets to 3 and up, becomes the program.

Run as ``python pass_sockets.py NAMES PATH… -- PROGRAM…``.
"""

import os
import socket
import sys

FIRST_FD = 3


def main() -> None:
    """Never returns: the process goes on as the program, as with sd_listen_fds(3)."""
    names, *rest = sys.argv[1:]
    split = rest.index("--")
    listeners = []
    for path in rest[:split]:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()
        listeners.append(listener)
    highest = max(listener.fileno() for listener in listeners) + FIRST_FD + len(listeners)
    kept = [os.dup2(sock.fileno(), highest + index) for index, sock in enumerate(listeners)]
    for index, fd in enumerate(kept):
        os.dup2(fd, FIRST_FD + index, inheritable=True)
    for path in rest[:split]:
        sys.stderr.write(f"Listening on {path}\n")
    sys.stderr.flush()
    os.environ.update(
        LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(listeners)), LISTEN_FDNAMES=names
    )
    program = rest[split + 1 :]
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
