"""What the service costs while nobody asks anything."""

import asyncio
import statistics
import subprocess
import sys
import time
from functools import partial

from benchmarks.bench import Bench, in_thread
from benchmarks.figures import Rounds, Table
from benchmarks.processes import child_environ, cpu_ms, rss_mb
from benchmarks.service import Service, running_service


async def measure(bench: Bench) -> Table:
    """The table ``idle``."""
    rounds = Rounds()
    for _ in range(min(bench.rounds, 3)):
        with running_service(bench, {"toy": bench.toy()}) as service:
            await _measure_once(bench, service, rounds)
    rows = (
        rounds.alone("daemon rss, after its start", "MB", "daemon rss", at_most=40),
        rounds.alone("daemon cpu", "%", "daemon cpu", at_most=0.1),
        rounds.alone("bridge rss, after its start", "MB", "bridge rss", at_most=70),
        rounds.alone("bridge cpu", "%", "bridge cpu"),
        rounds.alone("daemon rss, one model loaded and asked", "MB", "daemon rss loaded"),
        rounds.alone("bridge rss, likewise", "MB", "bridge rss loaded", at_most=70),
        rounds.alone("worker rss, toy of 4 MB", "MB", "worker rss"),
        rounds.alone("worker cpu", "%", "worker cpu"),
        rounds.beside(
            "mlxctl status, wall", "ms", ("mlxctl", "python"), "python -c pass", note=_COMPILED
        ),
    )
    return Table("idle", "memory and processor time without requests", rows)


_COMPILED = "with compiled bytecode kept (PYTHONDONTWRITEBYTECODE unset), second and later starts"


async def _measure_once(bench: Bench, service: Service, rounds: Rounds) -> None:
    rounds.add("daemon rss", rss_mb(service.daemon_pid))
    rounds.add("bridge rss", rss_mb(service.bridge_pid))
    await _idle_cpu(bench, {"daemon": service.daemon_pid, "bridge": service.bridge_pid}, rounds)
    server = await service.loaded("toy")
    await server.ask_all(bench.prompts(4), 16)
    for role in ("daemon", "bridge"):
        rounds.add(f"{role} rss loaded", rss_mb(server.pids[role]))
    rounds.add("worker rss", rss_mb(server.pids["worker"]))
    await _idle_cpu(bench, {"worker": server.pids["worker"]}, rounds)
    status = [sys.executable, "-m", "ctl", "status"]
    await in_thread(lambda: _wall_ms(status, service))  # compiles what is not compiled yet
    count = bench.fewer(10, 3)
    for name, command in (("mlxctl", status), ("python", [sys.executable, "-c", "pass"])):
        rounds.add(name, await in_thread(partial(_median_wall_ms, command, service, count)))


async def _idle_cpu(bench: Bench, pids: dict[str, int], rounds: Rounds) -> None:
    """Share of one core over a while; what start-up left to do is over by then or counts."""
    window_s = bench.fewer(30, 3)
    before = {role: cpu_ms(pid) for role, pid in pids.items()}
    await asyncio.sleep(window_s)
    for role, pid in pids.items():
        rounds.add(f"{role} cpu", (cpu_ms(pid) - before[role]) / window_s / 10)


def _median_wall_ms(command: list[str], service: Service, count: int) -> float:
    return statistics.median(_wall_ms(command, service) for _ in range(count))


def _wall_ms(command: list[str], service: Service) -> float:
    environ = child_environ({"MLXD_HOME": str(service.home)})
    began_s = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began_s) * 1000
