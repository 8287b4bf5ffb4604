"""The main thread of a worker: it owns the model, and every decision about requests.

A plain loop: take what the inbox has, step the engine while it has work, wait without
polling while it has not. Whatever a turn of the loop gave goes out as one post.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, Literal, assert_never

import structlog

from daemon.clock import Clock
from daemon.wire.data import (
    Accepted,
    Begin,
    Bye,
    CountTokens,
    Drain,
    Drained,
    Fail,
    Hosting,
    LinkCommand,
    LinkReport,
    LoadFailed,
    LoadProgress,
    Measured,
    Ready,
    Retire,
    Running,
    StillBusy,
    TokenCount,
    Trim,
    Usage,
    UsageReport,
    WorkAnswer,
    WorkRequest,
)
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.worker.ahead import Ahead
from daemon.worker.engines.base import Engine, LoadCancelled, Loaded, LoadRefused, Registry
from daemon.worker.inbox import (
    Cancel,
    Command,
    Inbox,
    LinkDown,
    LinkUp,
    Message,
    Outlet,
    Post,
    Prepared,
    Submit,
    Terminate,
)
from daemon.worker.meter import Meter
from daemon.worker.priority import lowered

log = structlog.get_logger()

EXIT_DONE: Final = 0
EXIT_LOAD_FAILED: Final = 1

BEGIN_TIMEOUT_S: Final = 60.0
"""A worker that is not told what to load ends itself after this."""

PROGRESS_INTERVAL_S: Final = 0.1
MEASURED_CHANGE_BYTES: Final = 64 << 20
MEASURED_CHANGE_SHARE: Final = 0.05

PUT_AWAY_AFTER_S: Final = 1.0
"""What can wait is done once nothing ran for so long, a piece at a time."""

PUT_AWAY_LAST_S: Final = 0.3
"""And for so long more before the end: an unload is waited for."""

Phase = Literal["waiting", "loading", "ready", "draining"]


class _Request:
    """Accepted and not yet ended."""

    def __init__(self, lease: str, started_at_ms: int, started_s: float) -> None:
        self.lease = lease
        self.started_at_ms = started_at_ms
        self.started_s = started_s


class Runner:
    """One worker's life, from waiting for ``begin`` to its exit code.

    Args:
        registry: The engines that ``begin`` may name.
        begin_timeout_s: See :data:`BEGIN_TIMEOUT_S`.
    """

    def __init__(
        self,
        worker: str,
        registry: Registry,
        inbox: Inbox,
        outlet: Outlet,
        *,
        begin_timeout_s: float = BEGIN_TIMEOUT_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock: Clock | None = None,
    ) -> None:
        self._worker = worker
        self._registry = registry
        self._inbox = inbox
        self._outlet = outlet
        self._ahead = Ahead(inbox)
        self._monotonic_s = monotonic_s
        self._clock = clock or Clock()
        self._phase: Phase = "waiting"
        self._begin: Begin | None = None
        self._engine: Engine | None = None
        self._loaded = Loaded(context_tokens=0)
        self._measured_bytes = 0
        self._requests: dict[int, _Request] = {}
        self._linked = False
        self._unlinked_s = monotonic_s()
        self._begin_by_s = self._unlinked_s + begin_timeout_s
        self._retire_by_s: float | None = None
        self._retire_reason = ""
        self._exit_code: int | None = None
        self._frames: list[tuple[int, WorkAnswer]] = []
        self._reports: list[LinkReport] = []
        self._changed = False
        self._running = Running(running=0)
        self._progress_s = 0.0
        self._put_away_at_s: float | None = None
        self._meter = Meter()

    def run(self) -> int:
        """Serve until there is a reason to end; gives the exit code."""
        while self._exit_code is None:
            self._turn()
        return self._exit_code

    def hosting(self) -> Hosting:
        """What a new link is told first."""
        return Hosting(
            worker=self._worker,
            pid=os.getpid(),
            phase=self._phase,
            path=self._begin.path if self._begin is not None else "",
            measured_bytes=self._measured_bytes,
            context_tokens=self._loaded.context_tokens,
            running=len(self._requests),
            leases=self._leases(),
        )

    def _turn(self) -> None:
        busy = self._engine is not None and self._engine.busy
        self._take(None if busy else self._inbox.next(self._timeout_s()))
        if self._engine is not None and self._engine.busy:
            self._step(self._engine)
        else:
            self._put_away()
        written = self._meter.report(self._monotonic_s(), idle=not self._requests)
        if written is not None:
            self._reports.append(written)
        self._check_deadlines()
        self._flush()

    def _take(self, message: Message | None) -> None:
        """Handle a message and everything that is behind it."""
        message = message or self._inbox.next_nowait()
        while message is not None and self._exit_code is None:
            self._handle(message)
            message = self._inbox.next_nowait()

    def _handle(self, message: Message) -> None:
        match message:
            case Submit():
                self._submit(message)
            case Prepared():
                self._prepared(message)
            case Cancel():
                self._ahead.forget(message.request_id)
                if self._engine is not None and message.request_id in self._requests:
                    usage = self._engine.cancel(message.request_id)
                    self._meter.ended(message.request_id, usage)
                    self._ended(message.request_id, usage)
            case LinkUp():
                self._linked = True
            case LinkDown():
                self._linked = False
                self._unlinked_s = self._monotonic_s()
            case Command():
                self._obey(message.command)
            case Terminate():
                self._retire("terminated", 0.0)
            case _:
                assert_never(message)

    def _obey(self, command: LinkCommand) -> None:
        match command:
            case Begin():
                self._load(command)
            case Drain():
                self._drain()
            case Trim():
                self._trim()
            case Retire():
                self._retire(command.reason, command.grace_s)
            case _:
                assert_never(command)

    # --- loading --------------------------------------------------------------

    def _load(self, begin: Begin) -> None:
        if self._begin is not None:
            log.warning("begin.repeated", path=begin.path)
            return
        self._begin = begin
        make = self._registry.get(begin.kind)
        if make is None:
            message = f'this build has no engine for models of kind "{begin.kind}"'
            self._load_failed(LoadRefused("incompatible", message))
            return
        if self._phase == "waiting":
            self._phase = "loading"
        self._changed = True
        self._flush()
        started_s = self._monotonic_s()
        try:
            engine = make()
            self._engine = engine
            with lowered() if begin.yields else nullcontext():
                self._loaded = engine.load(begin, self._progressed)
        except LoadCancelled:
            log.info("load.cancelled", path=begin.path)
        except LoadRefused as error:
            self._load_failed(error)
        else:
            self._load_done(engine, round((self._monotonic_s() - started_s) * 1000))

    def _load_done(self, engine: Engine, load_ms: int) -> None:
        if self._phase == "loading":
            self._phase = "ready"
        self._measured_bytes = engine.memory_bytes()
        self._changed = True
        self._reports.append(
            Ready(
                measured_bytes=self._measured_bytes,
                load_ms=load_ms,
                context_tokens=self._loaded.context_tokens,
            )
        )
        log.info("load.ready", load_ms=load_ms, measured_bytes=self._measured_bytes)

    def _load_failed(self, error: LoadRefused) -> None:
        log.error("load.failed", reason=error.reason, message=error.message)
        self._reports.append(LoadFailed(reason=error.reason, message=error.message))
        self._exit_code = EXIT_LOAD_FAILED

    def _progressed(self, done_bytes: int, total_bytes: int) -> None:
        """Called by the engine while it loads: report, and hear whether to stop."""
        now_s = self._monotonic_s()
        if now_s - self._progress_s >= PROGRESS_INTERVAL_S:
            self._progress_s = now_s
            self._reports.append(LoadProgress(done_bytes=done_bytes, total_bytes=total_bytes))
        self._take(None)
        self._flush()
        if self._retire_by_s is not None:
            raise LoadCancelled

    # --- requests -------------------------------------------------------------

    def _submit(self, submit: Submit) -> None:
        if self._phase != "ready" or self._engine is None:
            self._frames.append((submit.request_id, Fail(fault=self._not_admitting())))
            return
        work = self._engine.ahead(submit.request)
        if work is not None:
            self._ahead.begin(submit.request_id, work)
        if isinstance(submit.request, CountTokens):
            if work is None:
                self._count(self._engine, submit.request_id, submit.request)
            return
        self._requests[submit.request_id] = _Request(
            submit.request.lease, self._clock.now_ms(), self._monotonic_s()
        )
        self._changed = True
        if work is None:
            self._admit(self._engine, submit.request_id, submit.request)

    def _prepared(self, prepared: Prepared) -> None:
        """A request whose client has gone meanwhile is not known any more."""
        self._ahead.taken()
        request_id, outcome = prepared.request_id, prepared.outcome
        if self._engine is None:
            return
        if isinstance(outcome, Fault):
            self._refuse(request_id, outcome)
        elif isinstance(outcome, CountTokens):
            self._count(self._engine, request_id, outcome)
        elif request_id in self._requests:
            self._admit(self._engine, request_id, outcome)

    def _admit(self, engine: Engine, request_id: int, request: WorkRequest) -> None:
        try:
            prompt_tokens = engine.submit(request_id, request)
        except MlxdError as error:
            self._refuse(request_id, error.fault)
        else:
            self._frames.append((request_id, Accepted(prompt_tokens=prompt_tokens)))

    def _refuse(self, request_id: int, fault: Fault) -> None:
        """Nothing of it ran, so that nothing is counted."""
        self._requests.pop(request_id, None)
        self._changed = True
        self._frames.append((request_id, Fail(fault=fault)))

    def _count(self, engine: Engine, request_id: int, request: CountTokens) -> None:
        self._frames.append((request_id, self._counted(engine, request)))

    def _counted(self, engine: Engine, request: CountTokens) -> WorkAnswer:
        """The whole answer to a count, which is no work that anybody waits for."""
        try:
            return TokenCount(prompt_tokens=engine.count(request))
        except MlxdError as error:
            return Fail(fault=error.fault)
        except Exception as error:
            log.exception("count.failed")
            message = f"counting failed: {type(error).__name__}: {error}"
            return Fail(fault=Fault(code=Code.WORKER_FAILED, message=message))

    def _not_admitting(self) -> Fault:
        if self._phase == "draining":
            message = "the model is being unloaded; acquire it again"
        else:
            message = "the model is not loaded yet; acquire it and wait for the grant"
        return Fault(code=Code.BUSY, message=message)

    def _step(self, engine: Engine) -> None:
        began_s = self._monotonic_s()
        emissions = engine.step()
        self._meter.count(emissions, self._monotonic_s() - began_s)
        for emission in emissions:
            self._frames += [(emission.request_id, frame) for frame in emission.frames]
            if emission.usage is not None:
                self._ended(emission.request_id, emission.usage)

    def _ended(self, request_id: int, usage: Usage | None) -> None:
        request = self._requests.pop(request_id)
        self._changed = True
        idle = not self._requests
        self._put_away_at_s = self._monotonic_s() + PUT_AWAY_AFTER_S if idle else None
        if usage is not None:
            self._reports.append(
                UsageReport(
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    started_at_ms=request.started_at_ms,
                    busy_ms=round((self._monotonic_s() - request.started_s) * 1000),
                )
            )
        self._measure()

    def _measure(self) -> None:
        assert self._engine is not None, "only a loaded model has requests"
        now = self._engine.memory_bytes()
        notable = min(MEASURED_CHANGE_BYTES, self._measured_bytes * MEASURED_CHANGE_SHARE)
        if abs(now - self._measured_bytes) >= notable:
            self._measured_bytes = now
            self._reports.append(Measured(measured_bytes=now))

    def _trim(self) -> None:
        if self._engine is not None and self._phase == "ready":
            self._engine.trim()
            self._measure()
            log.info("caches.dropped", measured_bytes=self._measured_bytes)

    def _put_away(self) -> None:
        """A piece of what could wait, if it is time; the inbox is looked at between pieces."""
        due_s, engine = self._put_away_at_s, self._engine
        if engine is not None and due_s is not None and self._monotonic_s() >= due_s:
            self._put_away_at_s = due_s if engine.put_away() else None

    def _put_away_last(self, engine: Engine) -> None:
        if self._put_away_at_s is None:
            return
        until_s = self._monotonic_s() + PUT_AWAY_LAST_S
        while self._monotonic_s() < until_s and engine.put_away():
            continue

    def _leases(self) -> tuple[str, ...]:
        return tuple(sorted({request.lease for request in self._requests.values()}))

    # --- ending ---------------------------------------------------------------

    def _drain(self) -> None:
        if self._requests:
            self._reports.append(StillBusy(running=len(self._requests)))
            return
        self._phase = "draining"
        self._changed = True
        self._reports.append(Drained())

    def _retire(self, reason: str, grace_s: float) -> None:
        """Close admission; a second call can only bring the end nearer."""
        by_s = self._monotonic_s() + grace_s
        self._retire_by_s = by_s if self._retire_by_s is None else min(by_s, self._retire_by_s)
        self._retire_reason = self._retire_reason or reason
        self._phase = "draining"
        self._changed = True

    def _check_deadlines(self) -> None:
        now_s = self._monotonic_s()
        if self._exit_code is not None:
            return
        if self._retire_by_s is not None and (not self._requests or now_s >= self._retire_by_s):
            self._finish(self._retire_reason)
        elif self._begin is None and now_s >= self._begin_by_s:
            log.info("begin.missing")
            self._finish("no begin came")
        elif now_s >= self._alone_until_s() and not self._requests:
            log.info("daemon.missing")
            self._finish("no daemon came back")

    def _alone_until_s(self) -> float:
        """When a worker that nobody links ends itself; ``begin`` has its own deadline."""
        if self._linked or self._begin is None:
            return float("inf")
        return self._unlinked_s + self._begin.detach_grace_s

    def _timeout_s(self) -> float | None:
        """How long an idle worker may wait for a message."""
        deadline_s = self._alone_until_s() if self._begin is not None else self._begin_by_s
        if self._put_away_at_s is not None:
            deadline_s = min(deadline_s, self._put_away_at_s)
        if deadline_s == float("inf"):
            return None
        return max(0.0, deadline_s - self._monotonic_s())

    def _finish(self, reason: str) -> None:
        """Fail what still runs, free the model, say bye."""
        engine, self._engine = self._engine, None
        fault = Fault(
            code=Code.SHUTTING_DOWN, message=f"the model is being unloaded ({reason}); ask again"
        )
        for request_id in list(self._requests):
            self._frames.append((request_id, Fail(fault=fault)))
            self._requests.pop(request_id)
        if engine is not None:
            self._put_away_last(engine)
            engine.close()
        self._changed = True
        self._flush()
        self._outlet.post(Post(reports=(Bye(reason=reason),)))
        log.info("worker.done", reason=reason)
        self._exit_code = EXIT_DONE

    def _flush(self) -> None:
        """Hand over what this turn gave, if it gave anything."""
        hosting = None
        if self._changed:
            hosting = self.hosting()
            running = Running(running=hosting.running, leases=hosting.leases)
            if running != self._running:
                self._running = running
                self._reports.append(running)
            self._changed = False
        if hosting is None and not self._frames and not self._reports:
            return
        self._outlet.post(Post(tuple(self._frames), tuple(self._reports), hosting))
        self._frames.clear()
        self._reports.clear()
