"""The preloaded BLAS: which library a process ends up with, not how fast it is."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import fastblas
from tests.models.fastblas import fast_blas_env

# `-I` as workers are started: nothing but LD_PRELOAD may carry the library in.
ISOLATED = [sys.executable, "-I", "-c"]

WHO_HAS_SGEMM = """
import ctypes

class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("symbol", ctypes.c_char_p), ("address", ctypes.c_void_p)]

everything = ctypes.CDLL(None)
address = ctypes.cast(everything.cblas_sgemm, ctypes.c_void_p)
info = Info()
assert everything.dladdr(address, ctypes.byref(info))
print(info.file.decode())
"""

PRODUCTS = """
import mlx.core as mx
import numpy as np

random = np.random.default_rng(0)
a, b = random.standard_normal((2, 70, 70), dtype=np.float32)
product = np.array(mx.matmul(mx.array(a), mx.array(b), stream=mx.cpu))
print(float(np.abs(product - a.astype(np.float64) @ b.astype(np.float64)).max()))
"""


@pytest.fixture(scope="session")
def blas_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    env = fast_blas_env(tmp_path_factory.mktemp("fastblas"))
    if not env:
        pytest.skip("needs Linux on x86-64 with gcc and scipy")
    return env


def run(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*ISOLATED, script]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)


def test_the_process_finds_sgemm_in_the_shim(blas_env: dict[str, str]) -> None:
    done = run(WHO_HAS_SGEMM, blas_env)
    assert done.stdout.strip() == blas_env["LD_PRELOAD"]
    assert done.stderr == ""  # the dynamic linker complains there and goes on


def test_mlx_gets_the_shim_and_computes_right(blas_env: dict[str, str]) -> None:
    done = run(PRODUCTS, blas_env | {"LD_DEBUG": "bindings"})
    bindings = [line for line in done.stderr.splitlines() if "`cblas_sgemm'" in line]
    from_mlx = [line for line in bindings if "libmlx.so" in line.split(" to ")[0]]
    assert from_mlx
    assert all(f" to {blas_env['LD_PRELOAD']} " in line for line in from_mlx)
    assert float(done.stdout) < 1e-4


def test_compiles_once(tmp_path: Path, blas_env: dict[str, str]) -> None:
    first = fast_blas_env(tmp_path)
    shim = Path(first["LD_PRELOAD"])
    built = shim.stat().st_mtime_ns
    assert fast_blas_env(tmp_path) == first
    assert shim.stat().st_mtime_ns == built
    assert list(tmp_path.iterdir()) == [shim]
    assert shim.name == Path(blas_env["LD_PRELOAD"]).name


def test_nothing_on_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert fast_blas_env(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_nothing_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastblas, "_scipy_openblas", lambda: None)
    assert fast_blas_env(tmp_path) == {}


def test_nothing_where_the_path_cannot_be_preloaded(tmp_path: Path) -> None:
    assert fast_blas_env(tmp_path / "with space") == {}
