"""A conversation with the daemon, from a verb that is not asynchronous."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from ctl.app import App
from daemon.wire.client import Control, open_control
from daemon.wire.errors import Code, MlxdError

CLIENT: Final = "mlxctl"
"""Who asks, as the event log names it."""

T = TypeVar("T")


def talk(app: App, work: Callable[[Control], Awaitable[T]]) -> T:
    """Run ``work`` with a control connection and give back what it returns.

    Raises:
        MlxdError: Whatever failed, as one typed error; ``no_daemon`` if nobody listens.
        KeyboardInterrupt: Ctrl-C, after what was asked for has been withdrawn.
    """
    socket = app.socket

    async def converse() -> T:
        async with open_control(socket, CLIENT) as control:
            return await work(control)

    try:
        return anyio.run(converse)
    except BaseExceptionGroup as group:
        raise _explained(_root(group), socket) from group
    except (MlxdError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise _explained(error, socket) from error


def _root(error: BaseException) -> BaseException:
    """The one failure in a task group's nest of them, a typed one where there is one."""
    while isinstance(error, BaseExceptionGroup):
        typed = error.subgroup(MlxdError)
        error = (typed or error).exceptions[0]
    return error


def _explained(error: BaseException, socket: str) -> BaseException:
    """The failure in the words of this program."""
    if isinstance(error, MlxdError):
        if error.code is Code.NO_DAEMON and isinstance(error.__cause__, OSError):
            return MlxdError(
                Code.NO_DAEMON,
                f"the mlxd daemon is not running: nothing listens on {socket}",
                hint="start it with: mlxd",
            )
        return error
    if isinstance(error, TimeoutError | anyio.EndOfStream | anyio.BrokenResourceError):
        return MlxdError(
            Code.NO_DAEMON,
            f"whoever listens on {socket} does not answer as mlxd does",
            hint="look into the daemon's log, or restart it",
        )
    return error
