"""A fast matrix product for MLX in test processes: Linux on x86-64 only, never in the product.

The `mlx-cpu` wheel links the netlib reference BLAS, which is scalar: a few GFLOP/s. The dynamic
linker looks in preloaded libraries first, so a preloaded library that exports `cblas_sgemm` is
what `libmlx.so` gets. scipy ships a good OpenBLAS under prefixed names, and `shim.S` forwards the
three standard names to it.

The environment is the only way in: workers start as `python -I`, which ignores `PYTHON*`.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SHIM_SOURCE = Path(__file__).with_name("shim.S")


def fast_blas_env(cache_dir: Path) -> dict[str, str]:
    """Environment variables that make a process started with them multiply matrices fast.

    The shared library behind them is compiled once and kept in `cache_dir`.

    Args:
        cache_dir: Where the compiled library is kept; made if absent.

    Returns:
        Variables for the new process, or nothing where there is no fast BLAS to be had: not Linux
        on x86-64, no gcc, no scipy, or a path that `LD_PRELOAD` cannot express.

    Raises:
        RuntimeError: gcc is there and failed.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return {}
    openblas = _scipy_openblas()
    compiler = shutil.which("gcc")
    if openblas is None or compiler is None:
        return {}
    shim = _shim_path(cache_dir.resolve(), openblas)
    if any(separator in str(shim) for separator in " :"):
        return {}
    if not shim.exists():
        _compile(compiler, openblas, shim)
    # A second OpenBLAS thread made small and busy machines slower, not faster.
    return {"LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1"}


def _scipy_openblas() -> Path | None:
    """The OpenBLAS inside the installed scipy wheel, found without importing scipy."""
    spec = importlib.util.find_spec("scipy")
    if spec is None or spec.origin is None:
        return None
    wheel_libraries = Path(spec.origin).parent.parent / "scipy.libs"
    return next(iter(sorted(wheel_libraries.glob("libscipy_openblas-*.so"))), None)


def _shim_path(cache_dir: Path, openblas: Path) -> Path:
    """A name that changes with the source and with the library that gets linked by path."""
    key = hashlib.sha256(_SHIM_SOURCE.read_bytes() + os.fsencode(openblas)).hexdigest()
    return cache_dir / f"fastblas-{key[:12]}.so"


def _compile(compiler: str, openblas: Path, shim: Path) -> None:
    shim.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shim.parent, prefix=".building-") as scratch:
        built = Path(scratch) / shim.name
        command = [compiler, "-shared", str(_SHIM_SOURCE), str(openblas), "-o", str(built)]
        command += ["-Xlinker", "-rpath", "-Xlinker", str(openblas.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"gcc could not build the BLAS shim:\n{done.stderr}\n"
                "fix gcc, or leave fast_blas_env out of the worker's environment"
            )
        built.replace(shim)
