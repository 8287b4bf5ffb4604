"""What systemd does before it becomes a program: sockets at 3 and up, and three variables.

Run as ``python pass_sockets.py NAMES SOCKET… -- PROGRAM…``: a SOCKET is a path to bind, or
the number of a descriptor that listens already.
"""

import os
import socket
import sys

FIRST_FD = 3


def main() -> None:
    """Never returns: the process goes on as the program, as with sd_listen_fds(3)."""
    names, *rest = sys.argv[1:]
    split = rest.index("--")
    listeners = [_listening(given) for given in rest[:split]]
    highest = max(listener.fileno() for listener in listeners) + FIRST_FD + len(listeners)
    kept = [os.dup2(sock.fileno(), highest + index) for index, sock in enumerate(listeners)]
    for index, fd in enumerate(kept):
        os.dup2(fd, FIRST_FD + index, inheritable=True)
        os.close(fd)
    for path in rest[:split]:
        if not path.isdecimal():
            sys.stderr.write(f"Listening on {path}\n")
    sys.stderr.flush()
    os.environ.update(
        LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(listeners)), LISTEN_FDNAMES=names
    )
    program = rest[split + 1 :]
    os.execv(program[0], program)


def _listening(given: str) -> socket.socket:
    if given.isdecimal():
        return socket.socket(fileno=int(given))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(given)
    listener.listen()
    return listener


if __name__ == "__main__":
    main()
