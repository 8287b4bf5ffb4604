"""What the daemon knows, for ``/metrics``: gauges of its status, counters of its event log.

Nothing polls and no watch is held open: a scrape asks for the status and reads the records
since the scrape before, so that counters are exact at every scrape, across restarts of the
daemon too. Counting begins with the first scrape.
"""

from typing import Any, Final

import anyio
import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from daemon.wire import control as c
from daemon.wire.client import Control
from http_bridge.link import DaemonLink

_LOAD_S: Final = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class _Line(msgspec.Struct):
    events: tuple[dict[str, Any], ...]


_line: Final = msgspec.json.Decoder(_Line)


class PoolMetrics:
    """The pool's gauges and counters, in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"mlxd_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"mlxd_{name}", text, labels, registry=registry)

        self._up = gauge("up", "1 while the daemon answers.")
        self._budget = gauge("pool_budget_bytes", "What all claims together may come to.")
        self._committed = gauge("pool_committed_bytes", "All claims, loads in flight included.")
        self._memory = gauge("memory_total_bytes", "The machine's memory.")
        self._rss = gauge("daemon_rss_bytes", "What the daemon's own process holds.")
        self._queue = gauge("queue_requests", "Requests that wait for room or for a load.")
        self._models = gauge("resident_models", "Slots of the pool.", "state")
        self._claim = gauge("model_claim_bytes", "What is reserved for a model.", "model")
        self._measured = gauge("model_measured_bytes", "What its process holds.", "model")
        self._running = gauge("model_running_requests", "What it computes now.", "model")
        self._loads = counter("loads", "Loads that began.", "model", "reason")
        self._failures = counter("load_failures", "Loads that failed.", "model", "reason")
        self._load_s = Histogram(
            "mlxd_load_seconds",
            "How long loads took that ended well.",
            ("model",),
            buckets=_LOAD_S,
            registry=registry,
        )
        self._evictions = counter("evictions", "Models that made room.", "model", "reason")
        self._abandoned = counter("evictions_abandoned", "Stopped by a request.", "model")
        self._unloads = counter("unloads", "Unloads that began.", "model", "reason")
        self._crashes = counter("worker_crashes", "Workers that ended unasked.", "model")
        self._restarts = counter("worker_restarts", "Loads after a crash.", "model")
        self._refusals = counter("refusals", "Requests refused for good reason.", "model", "code")
        self._evicting: dict[str, str] = {}
        self._crashed: set[str] = set()

    def show(self, status: c.StatusView) -> None:
        """The pool as it is now."""
        self._up.set(1)
        self._budget.set(status.budget_bytes)
        self._committed.set(status.committed_bytes)
        self._memory.set(status.memory_total_bytes)
        self._rss.set(status.rss_bytes)
        self._queue.set(len(status.queue))
        self._forget()
        for model in status.models:
            self._models.labels(model.state).inc()
            self._claim.labels(model.name).set(model.claim_bytes)
            self._measured.labels(model.name).set(model.measured_bytes)
            self._running.labels(model.name).set(model.running)

    def show_gone(self) -> None:
        """The daemon does not answer: nothing is said of a pool that nobody can see."""
        for plain in (self._up, self._budget, self._committed, self._memory, self._rss):
            plain.set(0)
        self._queue.set(0)
        self._forget()

    def take(self, line: str) -> None:
        """Count the events of one record of the log."""
        for event in _line.decode(line).events:
            self._count(event)

    def _forget(self) -> None:
        for labelled in (self._models, self._claim, self._measured, self._running):
            labelled.clear()

    def _count(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "load.started", "model": {"name": str(model)}, "reason": reason}:
                self._loads.labels(model, reason).inc()
                if model in self._crashed:
                    self._crashed.discard(model)
                    self._restarts.labels(model).inc()
            case {"type": "load.ready", "model": model, "load_ms": load_ms}:
                self._load_s.labels(model).observe(load_ms / 1000)
            case {"type": "load.failed", "model": model, "reason": reason}:
                self._failures.labels(model, reason).inc()
            case {"type": "unload.started", "model": model, "reason": reason}:
                self._unloads.labels(model, reason).inc()
            case {"type": "worker.exited", "model": model, "expected": False}:
                self._crashed.add(model)
                self._crashes.labels(model).inc()
            case {"type": "request.refused", "model": model, "code": code}:
                self._refusals.labels(model, code).inc(event.get("count", 1))
            case {"type": str(kind), "model": str(model), "worker": str(worker)}:
                self._count_eviction(kind, model, worker, event)

    def _count_eviction(self, kind: str, model: str, worker: str, event: dict[str, Any]) -> None:
        match kind:
            case "evict.started":
                self._evicting[worker] = event["reason"]
            case "evict.finished":
                reason = self._evicting.pop(worker, "unknown")
                self._evictions.labels(model, reason).inc()
            case "evict.abandoned":
                self._evicting.pop(worker, None)
                self._abandoned.labels(model).inc()


class PoolReader:
    """Brings :class:`PoolMetrics` up to date."""

    def __init__(self, link: DaemonLink, metrics: PoolMetrics) -> None:
        self._link = link
        self._metrics = metrics
        self._seq: int | None = None
        self._lock = anyio.Lock()

    async def refresh(self) -> None:
        """Show the pool as it is, and count what has happened since the last time.

        Raises:
            MlxdError: ``no_daemon``; what was counted stays.
        """
        async with self._lock:
            control = await self._link.control()
            status = await control.status()
            self._metrics.show(status)
            if self._seq is None or status.seq < self._seq:
                self._seq = status.seq  # the first time, or another daemon's log
            while self._seq < status.seq:
                before = self._seq
                await self._read(control)
                if self._seq == before:
                    return

    async def _read(self, control: Control) -> None:
        """Records up to the log's end, or as many as come before the watch falls behind."""
        async with control.watch(self._seq, follow=False) as answers:
            async for answer in answers:
                if isinstance(answer, c.LogRecord):
                    self._metrics.take(answer.line)
                    self._seq = answer.seq
