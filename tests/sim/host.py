"""Worker processes in virtual time: they load, serve, crash, hang, lie and ignore signals.

One :class:`SimHost` outlives every daemon of a simulation, as a machine does. What it
raises as :class:`Violation` is true of the machine, whatever the pool believes.
"""

import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Literal

import anyio
import trio

from daemon.wire import data as d
from daemon.wire.errors import Code, MlxdError

GB = 10**9


class Violation(AssertionError):
    """Something happened that must never happen."""


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
    """One process: alive until ``ended``. As a process it also is what ``spawn`` returns."""

    def __init__(self, host: "SimHost", worker: str, pid: int) -> None:
        self.worker = worker
        self.pid = pid
        self.returncode: int | None = None
        self.ended = trio.Event()
        self.hung = False
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

    def say(self, report: d.LinkReport) -> None:
        if self.link is not None and self.alive and not self.hung:
            self.link.say(report)

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

    async def serve(self, lease: str, for_s: float) -> bool:
        """One request; False if it was not admitted or did not reach its end."""
        if self.phase != "ready" or self.hung or not self.alive:
            return False
        self.requests.add(lease)
        self.tell_running()
        with trio.move_on_after(for_s):
            await self.ended.wait()
        if not self.alive:
            return False
        self.requests.discard(lease)
        self.tell_running()
        self.say(d.UsageReport(prompt_tokens=1, completion_tokens=2, started_at_ms=0, busy_ms=1000))
        return True

    def tell_running(self) -> None:
        self.say(d.Running(running=len(self.requests), leases=tuple(sorted(self.requests))))

    def end(self, code: int) -> None:
        if self.alive:
            self.returncode = code
            self.ended.set()
            if self.link is not None:
                self.link.close()
                self.link = None

    def signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            if self.terminated_at_s is None or trio.current_time() - self.terminated_at_s < 59:
                raise Violation(f"{self.worker} was killed without being asked first")
            self.end(-number)
            return
        if self.requests and not self.hung and self.phase == "ready" and self.link is not None:
            raise Violation(f"{self.worker} was terminated while it served")
        if self.terminated_at_s is None:
            self.terminated_at_s = trio.current_time()
        if not self.hung and self._host.random.random() >= self._host.deafness:
            self.end(0)


class SimHost:
    """The machine. ``faults`` false: from now on everybody behaves."""

    def __init__(self, random: Random, tasks: trio.Nursery) -> None:
        self.random = random
        self.tasks = tasks
        self.faults = True
        self.boots = 1
        self.spawned: set[str] = set()
        self.begun: set[str] = set()
        self._files: dict[str, SimWorker] = {}
        self._by_pid: dict[int, SimWorker] = {}

    @property
    def boot_id(self) -> str:
        return f"boot{self.boots}"

    @property
    def deafness(self) -> float:
        return 0.3 if self.faults else 0.0

    def fate(self) -> str:
        if not self.faults:
            return "ready"
        return self.random.choices(("ready", "fail", "crash", "hang"), (12, 1, 2, 1))[0]

    def living(self) -> list[SimWorker]:
        return [worker for worker in self._by_pid.values() if worker.alive]

    def worker(self, name: str) -> SimWorker | None:
        return self._files.get(name)

    def lose_power(self) -> None:
        for worker in self.living():
            worker.end(-signal.SIGKILL)
        self._by_pid.clear()
        self.boots += 1

    def check_memory(self, budget_bytes: int) -> None:
        """The truth about memory and slots, summed over what really lives."""
        begun = [w for w in self.living() if w.weights_bytes]
        held_bytes = sum(w.weights_bytes for w in begun)
        if held_bytes > budget_bytes:
            raise Violation(f"{held_bytes} bytes in memory, {budget_bytes} allowed")
        paths = [w.path for w in begun]
        if len(paths) != len(set(paths)):
            raise Violation(f"a model is in memory twice: {paths}")

    # --- what the supervisor asks ---------------------------------------------------------

    async def spawn(self, worker: str) -> SimWorker:
        await trio.sleep(self.random.random() * 0.05)
        if self.faults and self.random.random() < 0.02:
            raise OSError("no more processes")
        if worker in self.spawned:
            raise Violation(f"{worker} was started twice")
        self.spawned.add(worker)
        pid = 1_000 + len(self.spawned)
        process = SimWorker(self, worker, pid)
        self._files[worker] = self._by_pid[pid] = process
        self.tasks.start_soon(self._end_without_begin, process)
        return process

    async def _end_without_begin(self, process: SimWorker) -> None:
        await trio.sleep(60)
        if process.phase == "waiting":
            process.end(0)

    async def wait_listening(self, process: object) -> None:
        await trio.sleep(self.random.random())
        if self.faults and self.random.random() < 0.03:
            raise MlxdError(Code.WORKER_FAILED, "it did not listen")

    @asynccontextmanager
    async def open_link(self, worker: str, generation: int) -> AsyncIterator[SimLink]:
        process = self._files.get(worker)
        await trio.sleep(self.random.random() * 0.02)
        if process is None or not process.alive:
            raise ConnectionRefusedError(worker)
        if process.hung:
            await trio.sleep(5)
            raise TimeoutError
        if generation < process.generation:
            raise MlxdError(Code.CONFLICT, "a newer daemon has this worker")
        process.generation = generation
        if process.link is not None:
            process.link.close()
        link = process.link = SimLink(process)
        try:
            yield link
        finally:
            if process.link is link:
                process.link = None

    async def is_held(self, worker: str) -> bool:
        await trio.lowlevel.checkpoint()
        process = self._files.get(worker)
        return process is not None and process.alive

    def holder(self, worker: str) -> int | None:
        process = self._files.get(worker)
        return None if process is None else process.pid

    def workers(self) -> list[str]:
        return sorted(self._files)

    def start_time(self, pid: int) -> float | None:
        process = self._by_pid.get(pid)
        return float(pid) if process is not None and process.alive else None

    async def wait_exit(self, pid: int) -> None:
        await self._by_pid[pid].ended.wait()

    def signal(self, pid: int, number: signal.Signals) -> None:
        process = self._by_pid.get(pid)
        if process is not None and process.alive:
            process.signalled(number)

    def remove_files(self, worker: str) -> None:
        self._files.pop(worker, None)
