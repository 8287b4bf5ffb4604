"""One worker as the supervisor holds it: what it is owed, and what it used."""

from collections import deque
from contextlib import suppress
from typing import Final

import anyio

from daemon.pool.messages import ReportUsage
from daemon.supervisor.host import WorkerProcess
from daemon.supervisor.residue import Wiring
from daemon.wire import data as d

OUTBOX_MAX: Final = 64
USAGE_WINDOW_MS: Final = 60_000
ARRIVALS_MAX: Final = 512
SPEED_WINDOW_MS: Final = 10_000


class Usage:
    """Finished requests since the window began; bounded, whatever the traffic."""

    def __init__(self, began_at_ms: int) -> None:
        self.began_at_ms = began_at_ms
        self._requests = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._busy_ms = 0
        self._arrivals: list[tuple[int, int]] = []
        self._dropped = 0

    def add(self, report: d.UsageReport) -> None:
        self._requests += 1
        self._prompt_tokens += report.prompt_tokens
        self._completion_tokens += report.completion_tokens
        self._busy_ms += report.busy_ms
        if len(self._arrivals) < ARRIVALS_MAX:
            offset_ms = max(report.started_at_ms - self.began_at_ms, 0)
            self._arrivals.append((offset_ms, report.busy_ms))
        else:
            self._dropped += 1

    def report(self, worker: str, now_ms: int) -> ReportUsage:
        return ReportUsage(
            worker=worker,
            window_ms=max(now_ms - self.began_at_ms, 1),
            requests=self._requests,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            busy_ms=self._busy_ms,
            arrivals=tuple(self._arrivals),
            arrivals_dropped=self._dropped,
        )


class Speed:
    """How fast a worker writes, from what it says it has written since its load."""

    def __init__(self) -> None:
        self._heard: deque[d.Written] = deque([d.Written(tokens=0, writing_ms=0)])

    def add(self, written: d.Written) -> float:
        """Tokens a second over the last of its writing, ``SPEED_WINDOW_MS`` at most."""
        self._heard.append(written)
        while len(self._heard) > 2 and written.writing_ms - self._heard[0].writing_ms > (
            SPEED_WINDOW_MS
        ):
            self._heard.popleft()
        oldest = self._heard[0]
        took_ms = written.writing_ms - oldest.writing_ms
        return 1000 * (written.tokens - oldest.tokens) / took_ms if took_ms > 0 else 0.0


class Seat:
    """A worker that lives, or is about to."""

    def __init__(self, worker: str, wiring: Wiring) -> None:
        self.worker = worker
        self.wiring = wiring
        self.footprint_bytes = 0
        """What it last said that it holds."""
        self.loading = False
        self.process: WorkerProcess | None = None
        """None for an adopted worker: it is no child of ours."""
        self.pid: int | None = None
        self.start_time: float | None = None
        self.said: str | None = None
        """Its parting word."""
        self.retiring = False
        self.usage: Usage | None = None
        self.speed = Speed()
        self.ended = anyio.Event()
        self._send, self.outbox = anyio.create_memory_object_stream[d.LinkCommand](OUTBOX_MAX)

    def tell(self, command: d.LinkCommand) -> None:
        """Queue a command; it is sent once the link is up.

        A worker is told a handful of things in its life: a full outbox is our own bug. Only
        that memory is short may be said for ever; while anything waits to be sent, it is not.
        One whose link has ended is told nothing more.
        """
        if isinstance(command, d.Trim) and self._send.statistics().current_buffer_used:
            return
        self.loading |= isinstance(command, d.Begin)
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._send.send_nowait(command)

    def hear(self, report: d.LinkReport) -> None:
        """Note what a report tells of the worker's memory."""
        if isinstance(report, d.Ready | d.Measured | d.Hosting):
            self.footprint_bytes = report.measured_bytes
        if isinstance(report, d.Ready | d.LoadFailed):
            self.loading = False
        self.wiring.look()

    def close(self) -> None:
        """Nothing more will be told."""
        self._send.close()
        self.outbox.close()
        if self.process is not None and self.process.returncode is None:
            # It outlives this daemon on purpose: Popen must not complain, or wait for it.
            self.process.returncode = 0
