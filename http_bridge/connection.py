"""What HTTP itself cannot read: an answer that clients understand, and one line in the log.

aiohttp answers such requests in plain text, logs a traceback for each, and leaves a request
waiting for ever whose body turns out broken after its headers were read.
"""

from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from http_bridge.bodies import unsupported_encoding
from http_bridge.errors import HttpProblem, unread_body

_log: Final = structlog.get_logger()


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_latest",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._latest: Any = EMPTY_PAYLOAD

    def data_received(self, data: bytes) -> None:
        """Take what came; a body that breaks off here ends for who is reading it, too."""
        super().data_received(data)
        for message, body in self._messages:
            if not isinstance(message, _ErrInfo):
                self._latest = body
            elif not self._latest.is_eof():
                self._latest.set_exception(web.RequestPayloadError(_reason(message.exc)))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read; of anything else, aiohttp's."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        reason = _reason(exc)
        _log.info("request.unreadable", remote=request.remote, reason=reason)
        problem = _problem(exc, reason)
        response = web.Response(
            status=problem.status,
            body=unread_body(problem),
            headers={"x-should-retry": "false"},
            content_type="application/json",
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Log what aiohttp could not handle; a broken body has been answered already."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)


class _Server(web.Server):
    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application over connections of ours."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            **self._kwargs,
        )


def _problem(error: HttpProcessingError, reason: str) -> HttpProblem:
    if isinstance(error, ContentEncodingError) and "install" in error.message:
        return unsupported_encoding("")
    if isinstance(error, ContentEncodingError):
        message = "the body cannot be read as its Content-Encoding says; send it again"
        return HttpProblem(400, message, code="invalid_request")
    message = f"the request is not HTTP that can be read ({reason}); mend the client"
    return HttpProblem(400, message, code="bad_request")


def _reason(error: BaseException) -> str:
    """The first line of what aiohttp says, which quotes the request after it."""
    said = error.message if isinstance(error, HttpProcessingError) else str(error)
    return (said.strip().splitlines() or ["unreadable"])[0].split(" when reading")[0].rstrip(".:")
