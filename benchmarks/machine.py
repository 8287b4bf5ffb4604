"""What was measured on: printed above the tables, and part of ``--json``."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

_PACKAGES = ("mlx", "mlx-lm", "mlx-vlm", "msgspec", "anyio", "aiohttp")


class Machine(msgspec.Struct, frozen=True):
    """Facts about the computer and the packages.

    Attributes:
        load_average: Over one, five and fifteen minutes, when this was read.
    """

    system: str
    processor: str
    cores: int
    memory_bytes: int
    python: str
    packages: dict[str, str]
    fast_blas: bool
    load_average: tuple[float, float, float]


def read_machine(*, fast_blas: bool) -> Machine:
    """The machine as it is now."""
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        fast_blas=fast_blas,
        load_average=os.getloadavg(),
    )


def machine_text(machine: Machine) -> str:
    """Three lines for people."""
    packages = " ".join(f"{name} {found}" for name, found in machine.packages.items())
    blas = "workers and peers with the tests' fast BLAS" if machine.fast_blas else "MLX's own BLAS"
    load = " ".join(f"{value:.2f}" for value in machine.load_average)
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_bytes / 1e9:.0f} GB; "
        f"{machine.system}\n"
        f"python {machine.python} {packages}; {blas}\n"
        f"load average at the start: {load}"
    )


def _processor() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
