"""Runs the bridge: from settings to a listening address, until it is told to stop."""

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

import anyio
import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from daemon.wire.errors import Code, MlxdError
from daemon.wire.logs import announce
from daemon.wire.settings import HttpSettings
from http_bridge import security
from http_bridge.app import Bridge
from http_bridge.bodies import STALL_S, Bodies
from http_bridge.connection import Runner
from http_bridge.info_endpoints import InfoEndpoints
from http_bridge.link import open_link
from http_bridge.media_endpoints import MediaEndpoints
from http_bridge.metrics import Metrics
from http_bridge.page_endpoints import PageEndpoints
from http_bridge.pool_endpoints import PoolEndpoints
from http_bridge.serving import Serving
from http_bridge.sse import BEGIN_AFTER_S, KEEP_ALIVE_S
from http_bridge.text_endpoints import Ids, TextEndpoints
from launchd.activation import Inherited

STOP_GRACE_S: Final = 15.0
"""For running requests after SIGTERM; the service files give 60 s."""

VERSION: Final = metadata.version("mlxd")
_log: Final = structlog.get_logger()


@asynccontextmanager
async def open_bridge(
    control_socket: str,
    http: HttpSettings,
    inherited: Inherited | None = None,
    *,
    stop_grace_s: float = STOP_GRACE_S,
    begin_after_s: float = BEGIN_AFTER_S,
    keep_alive_s: float = KEEP_ALIVE_S,
    body_stall_s: float = STALL_S,
) -> AsyncIterator[tuple[str, int]]:
    """A listening bridge; the daemon need not run yet.

    Inherited sockets take the place of ``http.host`` and ``http.port``.

    Leaving the block refuses new requests, lets running ones finish for ``stop_grace_s``,
    ends the rest with an error event, and closes.

    Returns:
        The bound host and port.

    Raises:
        MlxdError: ``invalid_request`` for settings that would expose the bridge without a
            key; ``conflict`` if the address is taken.
    """
    policy = security.make_policy(
        api_keys=http.api_keys,
        allowed_hosts=http.allowed_hosts,
        allowed_origins=http.allowed_origins,
    )
    for host in _hosts(http, inherited):
        security.check_exposure(host, policy)
    async with open_link(control_socket) as link:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        serving = Serving(link, metrics, begin_after_s=begin_after_s, keep_alive_s=keep_alive_s)
        ids = Ids(
            now_s=lambda: int(datetime.now(UTC).timestamp()),
            new_id=lambda: secrets.token_hex(12),
        )
        bodies = Bodies(http.body_bytes_max, body_stall_s)
        bridge = Bridge(
            handlers={
                **TextEndpoints(serving, bodies, ids).handlers(),
                **MediaEndpoints(serving, bodies, ids).handlers(),
                **InfoEndpoints(link, policy, registry, VERSION).handlers(),
                **PoolEndpoints(link, bodies).handlers(),
                **PageEndpoints().handlers(),
            },
            policy=policy,
            metrics=metrics,
            body_bytes_max=http.body_bytes_max,
        )
        runner = Runner(
            bridge.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            yield await _listen(runner, http, inherited)
        finally:
            with anyio.CancelScope(shield=True):
                await serving.stop(stop_grace_s)
                await runner.cleanup()


def _hosts(http: HttpSettings, inherited: Inherited | None) -> list[str]:
    if inherited is None:
        return [http.host]
    return [str(sock.getsockname()[0]) for sock in inherited.sockets]


async def _listen(
    runner: web.AppRunner, http: HttpSettings, inherited: Inherited | None
) -> tuple[str, int]:
    if inherited is not None:
        for sock in inherited.sockets:
            await web.SockSite(runner, sock).start()
        return _bound(runner)
    host = http.host.strip("[]")
    try:
        await web.TCPSite(runner, host, http.port).start()
    except OSError as error:
        raise MlxdError(
            Code.CONFLICT,
            f"cannot listen on {http.host}:{http.port}: {error.strerror}; stop the other "
            "program, or choose another http.port",
            field="http.port",
        ) from error
    return _bound(runner)


def _bound(runner: web.AppRunner) -> tuple[str, int]:
    bound: tuple[str, int] = runner.addresses[0][:2]
    return bound


async def run_bridge(
    control_socket: str, http: HttpSettings, inherited: Inherited | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout says where, in JSON."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_bridge(control_socket, http, inherited) as (host, port):
            _announce(host, port)
            async for received in signals:
                _log.info("bridge.stopping", signal=received.name)
                break
    _log.info("bridge.stopped")


def _announce(host: str, port: int) -> None:
    """Say where the bridge listens, for people's logs and for programs that wait for it."""
    line = {"event": "bridge.listening", "host": host, "port": port}
    announce(msgspec.json.encode(line))
