"""What goes wrong between mlxctl and the daemon, in the words of this program."""

from daemon.wire.errors import Code, MlxdError


class NotRunning(MlxdError):
    """Nobody listens."""


def not_running(socket: str) -> NotRunning:
    """Nobody listens."""
    return NotRunning(
        Code.NO_DAEMON,
        f"the mlxd daemon is not running: nothing listens on {socket}",
        hint="start it: mlxd, or from login on: mlxctl service install",
    )


def not_answering(socket: str) -> MlxdError:
    """Somebody listens, and says nothing, or goes away."""
    return MlxdError(
        Code.NO_DAEMON,
        f"whoever listens on {socket} does not answer as mlxd does",
        hint="look into the daemon's log, or restart it",
    )


def not_understood(error: Exception) -> MlxdError:
    """An answer that this version has no place for."""
    return MlxdError(
        Code.PROTOCOL_MISMATCH,
        f"the daemon said something that this mlxctl does not know: {error}",
        hint="compare the versions: mlxctl version",
    )
