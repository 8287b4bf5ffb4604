"""A conversation with the daemon, from a verb that is not asynchronous."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from ctl.app import CLIENT, App
from ctl.failures import NotRunning, not_answering, not_running
from daemon.wire.client import Control, open_control
from daemon.wire.errors import Code, MlxdError

T = TypeVar("T")
_NO_ANSWER: Final = (TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError)


def talk(app: App, work: Callable[[Control], Awaitable[T]]) -> T:
    """Run ``work`` with a control connection and give back what it returns.

    A daemon that is installed as a service and does not run is started first.

    Raises:
        MlxdError: Whatever failed, as one typed error; ``no_daemon`` if nobody listens.
        KeyboardInterrupt: Ctrl-C, after what was asked for has been withdrawn.
    """
    try:
        return _talk(app, work)
    except NotRunning as absent:
        from ctl.starting import start_daemon  # noqa: PLC0415

        start_daemon(app, absent)
    return _talk(app, work)


def _talk(app: App, work: Callable[[Control], Awaitable[T]]) -> T:
    socket = app.socket

    async def converse() -> T:
        async with open_control(socket, CLIENT) as control:
            return await work(control)

    try:
        return anyio.run(converse)
    except MlxdError as error:
        raise _explained(error, socket) from error


def _explained(error: MlxdError, socket: str) -> MlxdError:
    """The failure in the words of this program."""
    if error.code is Code.NO_DAEMON and isinstance(error.__cause__, _NO_ANSWER):
        return not_answering(socket)
    if error.code is Code.NO_DAEMON and isinstance(error.__cause__, OSError):
        return not_running(socket)
    return error
