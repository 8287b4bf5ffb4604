"""One worker process in virtual time: it loads, serves, crashes, hangs, lies, ignores signals."""

import math
import signal
from collections.abc import AsyncIterator
from random import Random
from typing import Literal, Protocol

import anyio
import trio

from daemon.wire import data as d

GB = 10**9


class Violation(AssertionError):
    """Something happened that must never happen."""


class Machine(Protocol):
    """What a worker meets of the machine that it runs on."""

    random: Random
    tasks: trio.Nursery
    begun: set[str]

    @property
    def deafness(self) -> float:
        """How likely a signal is not heeded."""

    def fate(self) -> str:
        """How the next load ends."""

    def wire_memory(self, worker: "SimWorker") -> None:
        """A process was killed: some of its memory may never come back."""


class SimLink:
    """A daemon's connection to a worker; the worker or the daemon may close it."""

    def __init__(self, worker: "SimWorker") -> None:
        self.hosting = worker.hosting()
        self._worker = worker
        self._send, self._receive = trio.open_memory_channel[d.LinkReport](math.inf)

    async def send(self, command: d.LinkCommand) -> None:
        await trio.lowlevel.checkpoint()
        if self._worker.link is not self:
            raise anyio.BrokenResourceError
        self._worker.hear(command)

    async def reports(self) -> AsyncIterator[d.LinkReport]:
        async for report in self._receive:
            yield report

    def say(self, report: d.LinkReport) -> None:
        self._send.send_nowait(report)

    def close(self) -> None:
        self._send.close()


class SimWorker:
    """One process: alive until ``ended``. As a process it also is what ``spawn`` returns.

    Attributes:
        honest: It never said what was not so; else nobody can be blamed for believing it.
    """

    def __init__(self, host: Machine, worker: str, pid: int) -> None:
        self.worker = worker
        self.pid = pid
        self.returncode: int | None = None
        self.ended = trio.Event()
        self.hung = False
        self.honest = True
        self.phase: str = "waiting"
        self.path = ""
        self.weights_bytes = 0
        self.generation = 0
        self.requests: set[str] = set()
        self.link: SimLink | None = None
        self.terminated_at_s: float | None = None
        self._host = host

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int:
        assert self.returncode is not None, "it is waited for before it has ended"
        return self.returncode

    def hosting(self) -> d.Hosting:
        assert self.phase in ("waiting", "loading", "ready", "draining")
        return d.Hosting(
            worker=self.worker,
            pid=self.pid,
            phase=self.phase,  # type: ignore[arg-type]
            path=self.path,
            measured_bytes=self.weights_bytes if self.phase != "waiting" else 0,
            context_tokens=8192,
            running=len(self.requests),
            leases=tuple(sorted(self.requests)),
        )

    # --- what it is told, and what it says --------------------------------------------------

    def say(self, report: d.LinkReport) -> None:
        if self.link is not None and self.alive and not self.hung:
            self.link.say(report)

    def lie(self, report: d.LinkReport) -> None:
        self.honest = False
        self.say(report)

    def tell_running(self) -> None:
        self.say(d.Running(running=len(self.requests), leases=tuple(sorted(self.requests))))

    def hear(self, command: d.LinkCommand) -> None:
        if self.hung or not self.alive:
            return
        match command:
            case d.Begin() if self.phase == "waiting":
                self.phase, self.path = "loading", command.path
                self.weights_bytes = command.weights_bytes
                self._host.begun.add(self.worker)
                self._host.tasks.start_soon(self._load)
            case d.Begin():
                raise Violation(f"{self.worker} was told twice to load")
            case d.Drain():
                if self.requests:
                    self.say(d.StillBusy(running=len(self.requests)))
                else:
                    self.phase = "draining"
                    self.say(d.Drained())
            case d.Retire():
                self._retire(command.grace_s)

    def _retire(self, grace_s: float) -> None:
        if self.requests and grace_s == 0:
            raise Violation(f"{self.worker} was told to end with {len(self.requests)} requests")
        self.phase = "draining"
        self._host.tasks.start_soon(self._leave)

    async def _leave(self) -> None:
        await trio.sleep(self._host.random.random() * 3)
        while self.requests and self.alive:  # noqa: ASYNC110 - a process that is told to end
            await trio.sleep(1)
        if not self.hung:
            self.say(d.Bye(reason="told to"))
            self.end(0)

    # --- loading and serving ------------------------------------------------------------------

    async def _load(self) -> None:
        random = self._host.random
        fate = self._host.fate()
        for step in range(1, 4):
            await trio.sleep(random.random() * 10)
            if not self.alive or self.hung or self.phase != "loading":
                return
            if step == 2 and fate == "crash":
                self.end(-signal.SIGSEGV)
                return
            if step == 2 and fate == "hang":
                self.hung = True
                return
            self.say(
                d.LoadProgress(
                    done_bytes=self.weights_bytes * step // 3, total_bytes=self.weights_bytes
                )
            )
        if fate == "fail":
            out_of_memory = random.random() < 0.5
            reason: Literal["out_of_memory", "crashed"]
            reason = "out_of_memory" if out_of_memory else "crashed"
            self.say(d.LoadFailed(reason=reason, message="so it goes"))
            self.end(1)
            return
        self.phase = "ready"
        self.say(d.Ready(measured_bytes=self.weights_bytes, load_ms=3_000, context_tokens=8192))

    async def serve(self, lease: str, for_s: float) -> Literal["served", "refused", "broken"]:
        """One request, which runs on whatever becomes of the daemon that granted it."""
        if self.phase != "ready" or self.hung or not self.alive:
            return "refused"
        self.requests.add(lease)
        self.tell_running()
        try:
            with trio.move_on_after(for_s):
                await self.ended.wait()
        finally:
            self.requests.discard(lease)
            self.tell_running()
        if not self.alive:
            return "broken"
        self.say(d.UsageReport(prompt_tokens=1, completion_tokens=2, started_at_ms=0, busy_ms=1000))
        return "served"

    # --- ending -------------------------------------------------------------------------------

    def end(self, code: int) -> None:
        if self.alive:
            self.returncode = code
            self.ended.set()
            if self.link is not None:
                self.link.close()
                self.link = None

    def kill(self) -> None:
        """Somebody else's SIGKILL, or the system's want of memory."""
        if self.alive:
            self._host.wire_memory(self)
            self.end(-signal.SIGKILL)

    def signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            asked_s = self.terminated_at_s
            asked = asked_s is not None and trio.current_time() - asked_s >= 59
            if not asked and self.generation > 0:  # a daemon has greeted it
                raise Violation(f"{self.worker} was killed without being asked first")
            self.kill()
            return
        if self.requests and not self.hung and self.phase == "ready" and self.link is not None:
            raise Violation(f"{self.worker} was terminated while it served")
        if self.terminated_at_s is None:
            self.terminated_at_s = trio.current_time()
        if not self.hung and self._host.random.random() >= self._host.deafness:
            self.end(0)
