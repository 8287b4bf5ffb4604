"""Reading request bodies, JSON and forms, within the bound that the settings give."""

from typing import Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from http_bridge.errors import HttpProblem, refuse

FORM_PARTS_MAX: Final = 64

_MALFORMED: Final = (ValueError, RuntimeError, AssertionError, HttpProcessingError)
"""What aiohttp's reader raises on forms that are none."""


class Bodies:
    """Reads bodies of at most ``bytes_max``."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max

    async def read(self, request: web.Request) -> bytes:
        """The whole body.

        Raises:
            HttpProblem: 413.
        """
        self._check_announced(request)
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise self._too_large() from error

    async def read_form(self, request: web.Request) -> dict[str, list[bytes]]:
        """A form's fields, by name, in the order in which they came.

        Raises:
            HttpProblem: 413.
            MlxdError: ``invalid_request`` if it is no form.
        """
        self._check_announced(request)
        form: dict[str, list[bytes]] = {}
        room = self._bytes_max
        try:
            reader = await request.multipart()
            parts = 0
            while (part := await reader.next()) is not None:
                parts += 1
                if not isinstance(part, BodyPartReader) or part.name is None:
                    raise refuse("body", "every part of the form needs a name")
                if parts > FORM_PARTS_MAX:
                    raise refuse("body", f"more than {FORM_PARTS_MAX} parts; send fewer")
                data = await self._read_part(part, room)
                room -= len(data)
                form.setdefault(part.name, []).append(data)
        except _MALFORMED as error:
            raise refuse("body", f"not a form that can be read ({error})") from error
        return form

    async def _read_part(self, part: BodyPartReader, room: int) -> bytes:
        data = bytearray()
        while chunk := await part.read_chunk():
            data += chunk
            if len(data) > room:
                raise self._too_large()
        return bytes(data)

    def _check_announced(self, request: web.Request) -> None:
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
