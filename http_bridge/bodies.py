"""Reading request bodies, JSON and forms, within the bound that the settings give."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import anyio
from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from http_bridge.errors import HttpProblem, refuse

T = TypeVar("T")

FORM_PARTS_MAX: Final = 64

STALL_S: Final = 60.0
"""A client that sends nothing of its body for so long is gone, or will never be done."""

_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})
"""Those that aiohttp undoes, if it has their libraries; it refuses them where it has not."""

_MALFORMED: Final = (ValueError, RuntimeError, AssertionError, HttpProcessingError)
"""What aiohttp's reader raises on forms that are none."""


class Bodies:
    """Reads bodies of at most ``bytes_max``, a piece every ``stall_s`` at least."""

    def __init__(self, bytes_max: int, stall_s: float = STALL_S) -> None:
        self._bytes_max = bytes_max
        self._stall_s = stall_s

    async def read(self, request: web.Request) -> bytes:
        """The whole body.

        Raises:
            HttpProblem: 400 if it breaks off, 408, 413, 415.
        """
        self._check_announced(request)
        body = bytearray()
        with _unbroken():
            while piece := await self._soon(request.content.readany()):
                body += piece
                if len(body) > self._bytes_max:
                    raise self._too_large()
        return bytes(body)

    async def read_form(self, request: web.Request) -> dict[str, list[bytes]]:
        """A form's fields, by name, in the order in which they came.

        Raises:
            HttpProblem: 400 if it breaks off, 408, 413, 415.
            MlxdError: ``invalid_request`` if it is no form.
        """
        self._check_announced(request)
        with _unbroken():
            try:
                return await self._read_parts(request)
            except _MALFORMED as error:
                raise refuse("body", f"not a form that can be read ({error})") from error

    async def _read_parts(self, request: web.Request) -> dict[str, list[bytes]]:
        form: dict[str, list[bytes]] = {}
        room = self._bytes_max
        reader = await request.multipart()
        parts = 0
        while (part := await self._soon(reader.next())) is not None:
            parts += 1
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise refuse("body", "every part of the form needs a name")
            if parts > FORM_PARTS_MAX:
                raise refuse("body", f"more than {FORM_PARTS_MAX} parts; send fewer")
            data = await self._read_part(part, room)
            room -= len(data)
            form.setdefault(part.name, []).append(data)
        return form

    async def _read_part(self, part: BodyPartReader, room: int) -> bytes:
        data = bytearray()
        while chunk := await self._soon(part.read_chunk()):
            data += chunk
            if len(data) > room:
                raise self._too_large()
        return bytes(data)

    async def _soon(self, piece: Awaitable[T]) -> T:
        try:
            with anyio.fail_after(self._stall_s):
                return await piece
        except TimeoutError as error:
            message = f"nothing of the body came for {self._stall_s:g} s; send it again"
            raise _ended(408, message, "body_timeout") from error

    def _check_announced(self, request: web.Request) -> None:
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "")
        if encoding.strip().lower() not in _ENCODINGS:
            raise unsupported_encoding(encoding)
        if (request.content_length or 0) > self._bytes_max:
            raise self._too_large()

    def _too_large(self) -> HttpProblem:
        return HttpProblem(
            413,
            f"the body is larger than {self._bytes_max} bytes; send less, or raise "
            "http.body_bytes_max in config.toml",
            code="body_too_large",
            headers={"x-should-retry": "false"},
        )


def unsupported_encoding(encoding: str) -> HttpProblem:
    """The 415 for a Content-Encoding that nobody here can undo."""
    shown = f"the body's Content-Encoding {encoding!r}" if encoding else "this Content-Encoding"
    message = f"{shown} cannot be read here; send the body plain, or as gzip or deflate"
    return _ended(415, message, "unsupported_media_type")


@contextmanager
def _unbroken() -> Iterator[None]:
    """Turn a body that the connection cannot go on reading into the client's mistake."""
    try:
        yield
    except web.RequestPayloadError as error:
        reason = str(error).strip().rpartition("\n")[2].strip().rstrip(".")
        message = f"the body cannot be read ({reason}); send it again"
        raise _ended(400, message, "invalid_request") from error


def _ended(status: int, message: str, code: str) -> HttpProblem:
    """A problem after which nothing more can be read from the connection."""
    return HttpProblem(
        status, message, code=code, headers={"x-should-retry": "false", hdrs.CONNECTION: "close"}
    )
