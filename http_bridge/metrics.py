"""What the bridge itself measures, for ``/metrics``: requests, latencies, tokens.

Prometheus' names and units (https://prometheus.io/docs/practices/naming/). A model's name is
only ever one that the daemon granted, so that no client can make up label values.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from daemon.wire import data as d
from daemon.wire.errors import HANDLING, Fault

_FIRST_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STEP_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)
_WHOLE_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_MODEL: Final = web.RequestKey("mlxd_model", str)
_BROKEN: Final = web.RequestKey("mlxd_broken", int)


class Metrics:
    """The bridge's own counters and histograms, in ``registry``.

    Args:
        now_s: A monotonic clock, in seconds.
    """

    def __init__(
        self, registry: CollectorRegistry, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_s = now_s
        self._requests = Counter(
            "mlxd_http_requests",
            "Answered HTTP requests; a stream that failed after its status counts as its fault's.",
            ("route", "model", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "mlxd_http_request_seconds",
            "From a request's arrival to the last byte of its answer.",
            ("route",),
            buckets=_WHOLE_S,
            registry=registry,
        )
        self.first_token = Histogram(
            "mlxd_time_to_first_token_seconds",
            "From a request's arrival to its first token, loading included.",
            ("model",),
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self.step = Histogram(
            "mlxd_inter_token_seconds",
            "Between a request's tokens after the first; several that came at once share the time.",
            ("model",),
            buckets=_STEP_S,
            registry=registry,
        )
        self.prompt = Counter(
            "mlxd_prompt_tokens",
            "Prompt tokens, counted by the engines.",
            ("model",),
            registry=registry,
        )
        self.cached = Counter(
            "mlxd_cached_prompt_tokens",
            "Prompt tokens that came from a cache.",
            ("model",),
            registry=registry,
        )
        self.completion = Counter(
            "mlxd_completion_tokens",
            "Decoded tokens, counted by the engines.",
            ("model",),
            registry=registry,
        )

    def timings(self, request: web.Request, choices: int) -> "list[Timing]":
        """A stopwatch a choice, all started now; the first counts the prompt they share."""
        return [Timing(self, request, counts_prompt=not choice) for choice in range(choices)]

    def broken(self, request: web.Request, fault: Fault) -> None:
        """A stream whose status was 200 ended with ``fault``."""
        request[_BROKEN] = HANDLING[fault.code].http_status

    def answered(self, request: web.Request, status: int, began_s: float) -> None:
        """Count a request whose handler has ended."""
        route = route_of(request)
        status = request.get(_BROKEN, status)
        self._requests.labels(route, request.get(_MODEL, ""), str(status)).inc()
        self._seconds.labels(route).observe(self._now_s() - began_s)

    def now_s(self) -> float:
        return self._now_s()


class Timing:
    """One choice's way through a worker."""

    def __init__(self, metrics: Metrics, request: web.Request, *, counts_prompt: bool) -> None:
        self._counts_prompt = counts_prompt
        self._metrics = metrics
        self._request = request
        self._model = ""
        self._last_s = metrics.now_s()
        self._tokens = 0
        self._step: Histogram

    def accepted(self, model: str) -> None:
        """The model is known from here on."""
        self._model = model
        self._request[_MODEL] = model

    def step(self, batch: Sequence[d.Delta]) -> None:
        """Some deltas have come."""
        now_s = self._metrics.now_s()
        elapsed_s = now_s - self._last_s
        if not self._tokens:
            self._metrics.first_token.labels(self._model).observe(elapsed_s)
            # Looked up once: finding a label's histogram takes longer than observing.
            self._step = self._metrics.step.labels(self._model)
        elif (gained := batch[-1].tokens - self._tokens) > 0:
            self._step.observe(elapsed_s / gained)
        self._tokens = max(self._tokens, batch[-1].tokens, 1)
        self._last_s = now_s

    def done(self, usage: d.Usage) -> None:
        """The request has ended well; its tokens count."""
        metrics = self._metrics
        if self._counts_prompt:
            metrics.prompt.labels(self._model).inc(usage.prompt_tokens)
            metrics.cached.labels(self._model).inc(usage.cached_tokens)
        metrics.completion.labels(self._model).inc(usage.completion_tokens)


def route_of(request: web.Request) -> str:
    """The route's pattern, never the path that was asked for."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical
