"""A program that is handed sockets: answers one connection on each name it was told of.

Run as ``python handed_over.py NAME…`` by whatever passes sockets on. Each connection is
told the name that its socket was asked for by, and whether a child would inherit it.
"""

import os
import sys

from launchd.activation import from_systemd


def main() -> int:
    """0 once every name has answered; 3 if nobody handed anything over."""
    for name in sys.argv[1:]:
        sockets = from_systemd(name, os.environ)
        if sockets is None:
            return 3
        for listener in sockets:
            connection, _ = listener.accept()
            inherited = os.get_inheritable(listener.fileno())
            connection.sendall(f"{name} inheritable={inherited}".encode())
            connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
