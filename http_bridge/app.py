"""The application: routes, and what happens to every request before and after its handler."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import msgspec
import structlog
from aiohttp import hdrs, web

from daemon.wire.errors import HANDLING, Code, Fault, MlxdError
from http_bridge import security, views
from http_bridge.errors import (
    HttpProblem,
    error_body,
    error_headers,
    problem_body,
)
from http_bridge.link import DaemonLink
from http_bridge.openai_chat import ChatReply, read_chat
from http_bridge.openai_completions import CompletionReply, read_completion
from http_bridge.serving import Serving

HEALTH_TIMEOUT_S: Final = 1.0
"""A daemon answers status within milliseconds; one that takes longer serves nobody."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log: Final = structlog.get_logger()


class Bridge:
    """The handlers.

    Args:
        now_s: Seconds since 1970, for ``created``.
        new_id: A random text, for the ids of answers.
        body_bytes_max: Largest request body.
    """

    def __init__(
        self,
        *,
        link: DaemonLink,
        serving: Serving,
        policy: security.Policy,
        body_bytes_max: int,
        now_s: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._link = link
        self._serving = serving
        self._policy = policy
        self._body_bytes_max = body_bytes_max
        self._now_s = now_s
        self._new_id = new_id

    def application(self) -> web.Application:
        """The aiohttp application; run it with ``handler_cancellation=True``."""
        app = web.Application(
            client_max_size=self._body_bytes_max, middlewares=[self._report, self._guard]
        )
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{id:.+}", self._model)
        app.router.add_get("/healthz", self._healthz)
        app.on_response_prepare.append(self._allow_origin)
        return app

    # --- endpoints ---------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        request_id = f"chatcmpl-{self._new_id()}"
        plan, include_usage = read_chat(await self._body(request), request_id)
        reply = ChatReply(
            request_id=request_id, created_s=self._now_s(), include_usage=include_usage
        )
        return await self._serving.answer(request, plan, reply)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        request_id = f"cmpl-{self._new_id()}"
        plan, include_usage = read_completion(await self._body(request), request_id)
        reply = CompletionReply(
            request_id=request_id, created_s=self._now_s(), include_usage=include_usage
        )
        return await self._serving.answer(request, plan, reply)

    async def _models(self, _request: web.Request) -> web.Response:
        control = await self._link.control()
        return _json(views.model_list(await control.models()))

    async def _model(self, request: web.Request) -> web.Response:
        control = await self._link.control()
        known = await control.models()
        return _json(views.model_object(views.find_model(known, request.match_info["id"])))

    async def _healthz(self, request: web.Request) -> web.Response:
        try:
            with anyio.fail_after(HEALTH_TIMEOUT_S):
                control = await self._link.control()
                well, shown = views.health(await control.status())
        except MlxdError as error:
            well, shown = False, views.unhealthy(error.fault)
        except TimeoutError:
            slow = Fault(
                code=Code.DEADLINE,
                message=f"the daemon did not answer within {HEALTH_TIMEOUT_S:g} s",
            )
            well, shown = False, views.unhealthy(slow)
        if not security.has_key(self._policy, _asked(request)):
            shown = {"status": shown["status"]}
        return _json(shown, status=200 if well else 503)

    async def _body(self, request: web.Request) -> bytes:
        if (request.content_length or 0) > self._body_bytes_max:
            raise self._too_large()
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise self._too_large() from error

    def _too_large(self) -> HttpProblem:
        return HttpProblem(
            413,
            f"the body is larger than {self._body_bytes_max} bytes; send less, or raise "
            "http.body_bytes_max in config.toml",
            code="body_too_large",
            headers={"x-should-retry": "false"},
        )

    # --- around every request ------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve only whom the policy lets."""
        asked = _asked(request)
        security.check_host(self._policy, asked)
        security.check_origin(self._policy, asked)
        if self._is_preflight(request):
            return self._preflight(request)
        if request.path != "/healthz":
            security.check_key(self._policy, asked)
        security.check_content_type(asked)
        return await handler(request)

    @web.middleware
    async def _report(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure as a status and an error object."""
        try:
            return await handler(request)
        except MlxdError as error:
            return _failed(error.fault)
        except HttpProblem as problem:
            return web.Response(
                status=problem.status,
                body=problem_body(problem),
                headers=problem.headers,
                content_type="application/json",
            )
        except web.HTTPException as error:
            return _unrouted(request, error)
        except ConnectionResetError:
            raise  # the client is gone; aiohttp ends the connection
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an error object
            _log.exception("request.failed", method=request.method, path=request.path)
            return _failed(Fault(code=Code.INTERNAL, message="the bridge failed; see its log"))

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


def _asked(request: web.Request) -> security.Asked:
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


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


def _failed(fault: Fault) -> web.Response:
    return web.Response(
        status=HANDLING[fault.code].http_status,
        body=error_body(fault),
        headers=error_headers(fault),
        content_type="application/json",
    )


def _unrouted(request: web.Request, error: web.HTTPException) -> web.Response:
    """An unknown path, or a known one asked in a way that it does not have."""
    words = {404: "does not exist here", 405: "cannot be used that way"}
    problem = HttpProblem(
        error.status,
        f"{request.method} {request.path} {words.get(error.status, error.reason)}",
        code="unknown_url" if error.status == 404 else "bad_request",
    )
    headers = {"x-should-retry": "false"}
    if hdrs.ALLOW in error.headers:
        headers["Allow"] = error.headers[hdrs.ALLOW]
    return web.Response(
        status=error.status,
        body=problem_body(problem),
        headers=headers,
        content_type="application/json",
    )
