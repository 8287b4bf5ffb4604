"""One question and its answer, without an event loop.

The verbs that people call all day ask one thing. Importing asyncio and anyio for that takes
longer than everything else they do together, so these verbs speak the same frames over a
blocking socket. Whatever streams, waits or can be withdrawn uses :mod:`ctl.connect`.
"""

import os
import socket
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from ctl.app import CLIENT, App
from ctl.failures import NotRunning, not_answering, not_running, not_understood
from daemon.wire import control as c
from daemon.wire.errors import MlxdError
from daemon.wire.framing import CONTROL_FRAME_BYTES_MAX, FrameReader, encode_frame

ANSWER_TIMEOUT_S: Final = 10.0
"""The daemon answers such questions in milliseconds; silence means that it hangs."""

_welcome: Final[msgspec.msgpack.Decoder[c.Welcome | c.Refusal]] = msgspec.msgpack.Decoder(
    c.Welcome | c.Refusal
)
_answer: Final[msgspec.msgpack.Decoder[c.ControlAnswer]] = msgspec.msgpack.Decoder(c.ControlAnswer)
AnswerT = TypeVar("AnswerT", bound=c.Answer)


def greet(app: App) -> c.Welcome:
    """Who answers on the control socket.

    Raises:
        MlxdError: As for :func:`ask`.
    """
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.settimeout(ANSWER_TIMEOUT_S)
        payloads = _talk(app.socket, dialled, _hello())
        return _welcomed(payloads, app.socket)


def ask(app: App, request: c.ControlRequest, expected: type[AnswerT]) -> AnswerT:
    """The daemon's answer to one request that it answers at once.

    Raises:
        MlxdError: ``no_daemon`` if nobody answers, ``protocol_mismatch`` if the daemon
            speaks another version, else what the daemon says. A daemon that is installed as
            a service is started first, unless all that is wanted is a look at it.
    """
    try:
        return _ask(app, request, expected)
    except NotRunning as absent:
        from ctl.starting import start_daemon, with_next_step  # noqa: PLC0415

        if isinstance(request, c.GetStatus):
            raise with_next_step(app, absent) from absent
        start_daemon(app, absent)
    return _ask(app, request, expected)


def ask_briefly(
    app: App, request: c.ControlRequest, expected: type[AnswerT], timeout_s: float
) -> AnswerT:
    """As :func:`ask`, for whoever can do without the answer: it starts nothing.

    Raises:
        MlxdError: As for :func:`ask`; also if ``timeout_s`` have passed in silence.
    """
    return _ask(app, request, expected, timeout_s)


def _ask(
    app: App,
    request: c.ControlRequest,
    expected: type[AnswerT],
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> AnswerT:
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.settimeout(timeout_s)
        return _expected(expected, _answers(app, dialled, request), app.socket)


def ask_last(app: App, request: c.ControlRequest) -> None:
    """Ask for something that ends the daemon; return once it has left the connection.

    Raises:
        MlxdError: As for :func:`ask`.
    """
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.settimeout(ANSWER_TIMEOUT_S)
        payloads = _answers(app, dialled, request)
        _expected(c.Ok, payloads, app.socket)
        for _ in payloads:
            pass


def _answers(app: App, dialled: socket.socket, request: c.ControlRequest) -> Iterator[bytes]:
    # Both frames at once: a refused hello costs nothing, and an accepted one no turn.
    payloads = _talk(app.socket, dialled, _hello() + encode_frame(request))
    _welcomed(payloads, app.socket)
    return payloads


def _expected(expected: type[AnswerT], payloads: Iterator[bytes], path: str) -> AnswerT:
    answer = _decoded(_answer, _next(payloads, path))
    if isinstance(answer, c.Failed):
        raise MlxdError.of(answer.fault)
    if not isinstance(answer, expected):
        raise not_understood(TypeError(f"{type(answer).__name__} answers no such request"))
    return answer


def _hello() -> bytes:
    return encode_frame(c.Hello(client=CLIENT, pid=os.getpid()))


def _talk(path: str, dialled: socket.socket, frames: bytes) -> Iterator[bytes]:
    """Send ``frames``; give back the payloads that come."""
    try:
        dialled.connect(path)
    except OSError as error:
        raise not_running(path) from error
    reader = FrameReader(CONTROL_FRAME_BYTES_MAX)
    try:
        dialled.sendall(frames)
        while data := dialled.recv(1 << 16):
            yield from reader.feed(data)
    except OSError as error:  # TimeoutError is one
        raise not_answering(path) from error
    except MlxdError as error:
        raise not_understood(error) from error


def _welcomed(payloads: Iterator[bytes], path: str) -> c.Welcome:
    welcome = _decoded(_welcome, _next(payloads, path))
    if isinstance(welcome, c.Refusal):
        raise MlxdError.of(welcome.fault)
    return welcome


def _next(payloads: Iterator[bytes], path: str) -> bytes:
    payload = next(payloads, None)
    if payload is None:
        raise not_answering(path)
    return payload


DecodedT = TypeVar("DecodedT")


def _decoded(decoder: msgspec.msgpack.Decoder[DecodedT], payload: bytes) -> DecodedT:
    try:
        return decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise not_understood(error) from error
