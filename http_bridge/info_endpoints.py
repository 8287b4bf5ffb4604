"""Handlers of the endpoints that tell about the service itself."""

from typing import Any, Final

import anyio
import msgspec
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from daemon.wire.errors import Code, Fault, MlxdError
from http_bridge import openapi, security, views
from http_bridge.anthropic_models import model_info, model_page
from http_bridge.app import Handler, asked_of, in_anthropics_form
from http_bridge.link import DaemonLink
from http_bridge.pool_metrics import PoolMetrics, PoolReader

HEALTH_TIMEOUT_S: Final = 1.0
"""A daemon answers status within milliseconds; one that takes longer serves nobody."""

READ_TIMEOUT_S: Final = 5.0
"""Prometheus gives up on a scrape after 10 s; what was not read comes with the next one."""


class InfoEndpoints:
    """The handlers, by the names of their routes.

    Args:
        registry: Where the bridge's own metrics are.
        version: Of the release, for the description of the API.
    """

    def __init__(
        self,
        link: DaemonLink,
        policy: security.Policy,
        registry: CollectorRegistry,
        version: str,
    ) -> None:
        self._link = link
        self._policy = policy
        self._registry = registry
        self._pool = PoolMetrics(registry)
        self._reader = PoolReader(link, self._pool)
        self._openapi = msgspec.json.encode(openapi.document(version))

    def handlers(self) -> dict[str, Handler]:
        return {
            "models": self._models,
            "model": self._model,
            "healthz": self._healthz,
            "metrics": self._metrics,
            "openapi": self._describe,
        }

    async def _models(self, request: web.Request) -> web.Response:
        known = await self._link.models()
        if in_anthropics_form(request):
            return _json(model_page(known, request.query))
        return _json(views.model_list(known))

    async def _model(self, request: web.Request) -> web.Response:
        found = views.find_model(await self._link.models(), request.match_info["id"])
        shown = model_info if in_anthropics_form(request) else views.model_object
        return _json(shown(found))

    async def _healthz(self, request: web.Request) -> web.Response:
        try:
            with anyio.fail_after(HEALTH_TIMEOUT_S):
                well, shown = views.health(await self._link.status())
        except MlxdError as error:
            well, shown = False, views.unhealthy(error.fault)
        except TimeoutError:
            slow = Fault(
                code=Code.DEADLINE,
                message=f"the daemon did not answer within {HEALTH_TIMEOUT_S:g} s",
            )
            well, shown = False, views.unhealthy(slow)
        if not security.has_key(self._policy, asked_of(request)):
            shown = {"status": shown["status"]}
        return _json(shown, status=200 if well else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        try:
            with anyio.fail_after(READ_TIMEOUT_S):
                await self._reader.refresh()
        except (MlxdError, TimeoutError):
            self._pool.show_gone()  # as mlxd_up 0: the bridge's own metrics go on
        return web.Response(
            body=generate_latest(self._registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type="application/json")


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )
