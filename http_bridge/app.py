"""The application: routes, and what happens to every request before and after its handler."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web

from daemon.wire.errors import HANDLING, Code, Fault, MlxdError
from http_bridge import security
from http_bridge.errors import (
    HttpProblem,
    error_body,
    error_headers,
    problem_body,
)
from http_bridge.metrics import Metrics
from http_bridge.pool_routes import PAGE_ROUTES, POOL_ROUTES
from http_bridge.routes import FORM_PATHS, ROUTES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log: Final = structlog.get_logger()


class Bridge:
    """The application around the handlers.

    Args:
        handlers: One for each name in the table of routes.
        body_bytes_max: Largest request body.
    """

    def __init__(
        self,
        *,
        handlers: dict[str, Handler],
        policy: security.Policy,
        metrics: Metrics,
        body_bytes_max: int,
    ) -> None:
        self._handlers = handlers
        self._policy = policy
        self._metrics = metrics
        self._body_bytes_max = body_bytes_max

    def application(self) -> web.Application:
        """The aiohttp application; run it with ``handler_cancellation=True``."""
        app = web.Application(
            client_max_size=self._body_bytes_max,
            middlewares=[self._measure, self._report, self._guard],
        )
        for route in (*ROUTES, *POOL_ROUTES, *PAGE_ROUTES):
            path = route.path.replace("{id}", "{id:.+}")
            if route.method == "GET":
                app.router.add_get(path, self._handlers[route.name])
            else:
                app.router.add_post(path, self._handlers[route.name])
        app.on_response_prepare.append(self._allow_origin)
        return app

    # --- around every request ------------------------------------------------------

    @web.middleware
    async def _measure(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count every request, those whose client has left as 499."""
        began_s = self._metrics.now_s()
        status = HANDLING[Code.CANCELLED].http_status
        try:
            response = await handler(request)
            status = response.status
        finally:
            self._metrics.answered(request, status, began_s)
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve only whom the policy lets."""
        asked = asked_of(request)
        security.check_host(self._policy, asked)
        security.check_origin(self._policy, asked)
        if self._is_preflight(request):
            return self._preflight(request)
        if not _is_open(request.path):
            security.check_key(self._policy, asked)
        if request.match_info.http_exception is not None:
            raise request.match_info.http_exception
        form = request.path in FORM_PATHS
        security.check_content_type(asked, "multipart/form-data" if form else "application/json")
        return await handler(request)

    @web.middleware
    async def _report(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure as a status and an error object."""
        try:
            return await handler(request)
        except MlxdError as error:
            return _failed(request, error.fault)
        except HttpProblem as problem:
            return _refused(request, problem)
        except web.HTTPException as error:
            return _unrouted(request, error)
        except ConnectionResetError:
            raise  # the client is gone; aiohttp ends the connection
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an error object
            _log.exception("request.failed", method=request.method, path=request.path)
            fault = Fault(code=Code.INTERNAL, message="the bridge failed; see its log")
            return _failed(request, fault)

    def _is_preflight(self, request: web.Request) -> bool:
        return (
            request.method == hdrs.METH_OPTIONS
            and request.headers.get(hdrs.ORIGIN) in self._policy.allowed_origins
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )

    def _preflight(self, request: web.Request) -> web.Response:
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted,
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            },
        )

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let a configured origin's page read the answer (https://fetch.spec.whatwg.org)."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._policy.allowed_origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.VARY] = hdrs.ORIGIN


def _is_open(path: str) -> bool:
    """Whether no key is needed: health, and the page, which asks for the key itself."""
    return path in {"/healthz", "/"} or path.startswith("/page/")


def asked_of(request: web.Request) -> security.Asked:
    """The facts that decide whether a request may be served."""
    api_key = request.headers.get("x-api-key")
    transport = request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    return security.Asked(
        method=request.method,
        host=request.headers.get(hdrs.HOST, ""),
        local_host=local[0] if local else "",
        origin=request.headers.get(hdrs.ORIGIN),
        credential=f"Bearer {api_key}" if api_key else request.headers.get(hdrs.AUTHORIZATION),
        content_type=request.content_type if hdrs.CONTENT_TYPE in request.headers else "",
    )


def _failed(request: web.Request, fault: Fault) -> web.Response:
    return web.Response(
        status=HANDLING[fault.code].http_status,
        body=error_body(fault, anthropic=in_anthropics_form(request)),
        headers=error_headers(fault),
        content_type="application/json",
    )


def _refused(request: web.Request, problem: HttpProblem) -> web.Response:
    response = web.Response(
        status=problem.status,
        body=problem_body(problem, anthropic=in_anthropics_form(request)),
        headers=problem.headers,
        content_type="application/json",
    )
    if hdrs.CONNECTION in response.headers:
        response.force_close()
    return response


def _unrouted(request: web.Request, error: web.HTTPException) -> web.Response:
    """An unknown path, or a known one asked in a way that it does not have."""
    words = {404: "does not exist here", 405: "cannot be used that way"}
    headers = {"x-should-retry": "false"}
    if hdrs.ALLOW in error.headers:
        headers["Allow"] = error.headers[hdrs.ALLOW]
        words[405] += f"; use {headers['Allow'].replace(',', ' or ')}"
    problem = HttpProblem(
        error.status,
        f"{request.method} {request.path} {words.get(error.status, error.reason)}",
        code="unknown_url" if error.status == 404 else "bad_request",
        headers=headers,
    )
    return _refused(request, problem)


def in_anthropics_form(request: web.Request) -> bool:
    """Whether the request was made in Anthropic's protocol, and is answered in it."""
    if request.path == "/v1/models" or request.path.startswith("/v1/models/"):
        return "anthropic-version" in request.headers
    return request.path.startswith("/v1/messages")
