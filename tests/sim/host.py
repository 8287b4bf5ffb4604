"""The machine in virtual time: its processes, its memory, its clock, what it says of itself.

One :class:`SimHost` outlives every daemon of a simulation, as a machine does. What it
raises as :class:`Violation` is true of the machine, whatever the pool believes.
"""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import trio

from daemon.pool import messages as m
from daemon.wire.errors import Code, MlxdError
from tests.sim.worker import SimLink, SimWorker, Violation


class SimHost:
    """The machine.

    Attributes:
        faults: False: from now on everybody behaves.
        asleep_s: How far the wall clock is ahead of the one that stands still in sleep.
        pressure: What the system says of its memory.
        tell: Where the daemon that runs hears of the machine; None while none runs.
        spares: Processes that are no workers yet.
        in_threads: How many calls the daemon waits for that a thread would run.
        read_ahead_of: The folders that were to be read ahead, one entry each time.
    """

    def __init__(self, random: Random, tasks: trio.Nursery) -> None:
        self.random = random
        self.tasks = tasks
        self.faults = True
        self.boots = 1
        self.asleep_s = 0.0
        self.pressure: m.PressureLevel = "normal"
        self.tell: Callable[[m.AnyCommand], None] | None = None
        self._started = 0
        self.spawned: set[str] = set()
        self.begun: set[str] = set()
        self._files: dict[str, SimWorker] = {}
        self._by_pid: dict[int, SimWorker] = {}
        self._living: dict[int, SimWorker] = {}
        self.spares: list[SimWorker] = []
        self.in_threads = 0
        self.read_ahead_of: list[str] = []
        self._reading = False
        self._were_spares: set[int] = set()

    async def in_thread(self, function: Any, *arguments: object, **__: object) -> Any:
        """What would run in a thread runs here: time is virtual, and threads are not."""
        self.in_threads += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.in_threads -= 1
        return function(*arguments)

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
        dead = [pid for pid, worker in self._living.items() if not worker.alive]
        for pid in dead:
            del self._living[pid]
        return list(self._living.values())

    def worker(self, name: str) -> SimWorker | None:
        return self._files.get(name)

    def read_pressure(self) -> m.PressureLevel:
        return self.pressure

    def lose_power(self) -> None:
        for worker in self.living():
            worker.end(-signal.SIGKILL)
        self._by_pid.clear()
        self.boots += 1

    def wire_memory(self, worker: SimWorker) -> None:
        if self.faults and self.tell is not None and self.random.random() < 0.2:
            residue_bytes = int(worker.weights_bytes * self.random.random() * 0.3)
            self.tell(m.ReportResidue(worker=worker.worker, residue_bytes=residue_bytes))

    # --- what the supervisor asks ---------------------------------------------------------

    async def spawn(self, worker: str, *, yields: bool) -> SimWorker:
        """``yields`` asks for a lower priority: nobody competes for a simulated processor."""
        del yields
        process = await self._start(worker)
        self._become(process, worker)
        return process

    async def spawn_spare(self, spare: str) -> SimWorker:
        process = await self._start(spare)
        self.spares = [each for each in self.spares if each.alive]
        self.spares.append(process)
        return process

    async def hand_over(self, process: object, spare: str, worker: str) -> None:
        assert isinstance(process, SimWorker), "it came from spawn_spare"
        await trio.lowlevel.checkpoint()
        if not process.alive:
            raise BrokenPipeError(spare)
        self.spares.remove(process)
        self._were_spares.add(process.pid)
        self._become(process, worker)

    def let_go(self, process: object) -> None:
        """As the end of the daemon does: see :meth:`end_spares`."""

    @property
    def handed_over(self) -> int:
        """How many spares became workers."""
        return len(self._were_spares)

    def end_spares(self) -> None:
        """The daemon's process is gone, and what was tied to it ends."""
        for spare in self.spares:
            spare.end(0)
        self.spares.clear()

    async def _start(self, name: str) -> SimWorker:
        await trio.sleep(self.random.random() * 0.05)
        if self.faults and self.random.random() < 0.02:
            raise OSError("no more processes")
        self._started += 1
        process = SimWorker(self, name, 1_000 + self._started)
        self._by_pid[process.pid] = process
        return process

    def _become(self, process: SimWorker, worker: str) -> None:
        earlier = self._files.get(worker)
        if worker in self.spawned and (earlier is None or earlier.pid not in self._were_spares):
            raise Violation(f"{worker} was started twice")
        self.spawned.add(worker)
        process.worker = worker
        if earlier is not None and earlier.alive:
            raise Violation(f"{worker} was started while a spare that was given up has its lock")
        self._files[worker] = self._living[process.pid] = process
        self.tasks.start_soon(self._end_without_begin, process)

    async def _end_without_begin(self, process: SimWorker) -> None:
        await trio.sleep(60)
        if process.phase == "waiting":
            process.end(0)

    async def wait_listening(self, process: object) -> None:
        await trio.sleep(self.random.random())
        hung = isinstance(process, SimWorker) and process.hung
        if hung or (self.faults and self.random.random() < 0.03):
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

    async def read_ahead(self, folder: Path, stopped: Callable[[], bool]) -> None:
        """Takes up to two seconds; every fifth folder cannot be read."""
        if self._reading:
            raise Violation(f"{folder} is read ahead beside another")
        self.read_ahead_of.append(str(folder))
        if self.faults and len(self.read_ahead_of) % 5 == 0:
            raise OSError("no such volume")
        self._reading = True
        try:
            for _ in range(4):
                if not stopped():
                    await trio.sleep(0.5)
        finally:
            self._reading = False

    def remove_files(self, worker: str) -> None:
        self._files.pop(worker, None)
