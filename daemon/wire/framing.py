"""Frames: a ``u32`` big-endian length, then one msgpack map tagged by ``type``.

:class:`FrameReader` is sans-IO: bytes in, payloads out. The length is checked before
anything is allocated for it, so a hostile peer cannot make the process grow.
"""

import struct
from typing import Any, Final

import msgspec

from daemon.wire.errors import Code, MlxdError

CONTROL_FRAME_BYTES_MAX: Final = 1 << 20
DATA_FRAME_BYTES_MAX: Final = 64 << 20
FRAME_TIMEOUT_S: Final = 5.0
"""A started frame must finish within this time."""

NEAR: Final = 30
"""How many characters are shown on each side of one that is no text."""

GARBLED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a payload raises that is no message; the last if it is nested too deeply."""

_LENGTH: Final = struct.Struct(">I")
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_frame(message: Any, frame_bytes_max: int = DATA_FRAME_BYTES_MAX) -> bytes:
    """One message as the bytes of one frame.

    Raises:
        MlxdError: ``invalid_request`` if the frame would pass ``frame_bytes_max``, or if
            something in it is not UTF-8 text.
    """
    buffer = bytearray(_LENGTH.size)
    try:
        _ENCODER.encode_into(message, buffer, _LENGTH.size)
    except UnicodeEncodeError as error:
        raise _not_utf8(error) from error
    size = len(buffer) - _LENGTH.size
    if size > frame_bytes_max:
        raise _too_large(size, frame_bytes_max)
    _LENGTH.pack_into(buffer, 0, size)
    return bytes(buffer)


def checked_utf8(text: str) -> str:
    """``text``, if a frame can hold it: bytes that are no text Python keeps as surrogates.

    Raises:
        MlxdError: ``invalid_request`` if it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(error) from error
    return text


class FrameReader:
    """Splits a byte stream into frame payloads."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    @property
    def started(self) -> bool:
        """Whether part of a frame has arrived and the rest has not."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in; give back every payload that is now complete.

        Raises:
            MlxdError: ``invalid_request`` if a frame announces more than the bound.
        """
        if not self._buffer and _is_one_frame(data):  # as nearly always; no copies
            self._check(len(data) - _LENGTH.size)
            return [data[_LENGTH.size :]]
        self._buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            self._check(size)
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            payloads.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return payloads

    def _check(self, size: int) -> None:
        if size > self._frame_bytes_max:
            raise _too_large(size, self._frame_bytes_max)


def _is_one_frame(data: bytes) -> bool:
    length = len(data) - _LENGTH.size
    return length >= 0 and _LENGTH.unpack_from(data)[0] == length


def _not_utf8(error: UnicodeEncodeError) -> MlxdError:
    near = error.object[max(0, error.start - NEAR) : error.start + NEAR]
    hint = "convert it, or rename the file that is named so"
    return MlxdError(Code.INVALID_REQUEST, f"{near!r} is not UTF-8 text; {hint}", hint=hint)


def _too_large(size: int, bound: int) -> MlxdError:
    return MlxdError(
        Code.INVALID_REQUEST,
        f"a frame of {size} bytes is over the bound of {bound}; send less at once",
        field="frame",
    )
