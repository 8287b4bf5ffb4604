"""A conversation with the daemon, from a verb that is not asynchronous."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
import msgspec

from ctl.app import CLIENT, App
from ctl.failures import not_answering, not_running, not_understood
from daemon.wire.client import Control, open_control
from daemon.wire.errors import Code, MlxdError

T = TypeVar("T")
_NO_ANSWER: Final = (TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError)


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
    except (MlxdError, *_NO_ANSWER, msgspec.MsgspecError) as error:
        raise _explained(error, socket) from error


def _root(error: BaseException) -> BaseException:
    """The one failure that tells most, of a task group's nest of them.

    An answer that nobody understands ends the connection, too: that is no news beside it.
    """
    while isinstance(error, BaseExceptionGroup):
        telling = error.subgroup(msgspec.MsgspecError) or error.subgroup(MlxdError)
        error = (telling or error).exceptions[0]
    return error


def _explained(error: BaseException, socket: str) -> BaseException:
    """The failure in the words of this program."""
    if isinstance(error, MlxdError):
        refused = error.code is Code.NO_DAEMON and isinstance(error.__cause__, OSError)
        return not_running(socket) if refused else error
    if isinstance(error, _NO_ANSWER):
        return not_answering(socket)
    if isinstance(error, msgspec.MsgspecError):
        return not_understood(error)
    return error
