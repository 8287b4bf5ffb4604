"""Handlers of the page at ``/``: files of this package, served as they are."""

from hashlib import sha256
from importlib import resources
from typing import Final

from aiohttp import hdrs, web

from http_bridge.app import Handler
from http_bridge.errors import HttpProblem

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _File:
    def __init__(self, name: str, body: bytes) -> None:
        self.body = body
        self.type = _TYPES["." + name.rpartition(".")[2]]
        self.tag = f'"{sha256(body).hexdigest()[:16]}"'


class PageEndpoints:
    """The page's files, read once: no path from a request is ever opened."""

    def __init__(self) -> None:
        folder = resources.files("http_bridge") / "page"
        self._files = {
            entry.name: _File(entry.name, entry.read_bytes())
            for entry in folder.iterdir()
            if entry.name.endswith(tuple(_TYPES))
        }

    def handlers(self) -> dict[str, Handler]:
        return {"page": self._page, "page_file": self._file}

    async def _page(self, request: web.Request) -> web.Response:
        return _answer(request, self._files["index.html"])

    async def _file(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["id"])
        if file is None:
            raise HttpProblem(404, "the page has no such file", code="unknown_url")
        return _answer(request, file)


def _answer(request: web.Request, file: _File) -> web.Response:
    headers = {**_HEADERS, hdrs.ETAG: file.tag}
    if request.headers.get(hdrs.IF_NONE_MATCH) == file.tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.type, charset="utf-8", headers=headers)
