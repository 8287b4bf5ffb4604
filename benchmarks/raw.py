"""The library alone, held ready in a child process."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import msgspec

from benchmarks.bench import Bench, Pace, in_thread
from benchmarks.processes import child_environ, started


class RawFailed(Exception):
    """The child ended; its log says why."""


class _Loaded(msgspec.Struct):
    import_s: float
    load_s: float


class _Decoded(msgspec.Struct):
    tokens: int
    seconds: float
    cpu_ms: float


class Raw:
    """One model in a process that does nothing else.

    Attributes:
        start_s: From the start of the process to a loaded model.
        load_s: The part of that which ``mlx_lm.load`` took.
    """

    def __init__(self, process: Popen[bytes], log: Path, began_s: float) -> None:
        self._process = process
        self._log = log
        loaded = msgspec.json.decode(self._line(), type=_Loaded)
        self.start_s = time.perf_counter() - began_s
        self.load_s = loaded.load_s

    async def decode(self, prompts: list[str], tokens: int) -> Pace:
        """Decode all prompts together."""
        return await in_thread(lambda: self._decode(prompts, tokens))

    def _decode(self, prompts: list[str], tokens: int) -> Pace:
        assert self._process.stdin is not None
        asked = msgspec.json.encode({"prompts": prompts, "tokens": tokens})
        self._process.stdin.write(asked + b"\n")
        self._process.stdin.flush()
        done = msgspec.json.decode(self._line(), type=_Decoded)
        return Pace(done.tokens, done.seconds, {"process": done.cpu_ms})

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RawFailed(self._log.read_text("utf-8"))
        return line


@contextmanager
def running_raw(bench: Bench, model: Path, *, stand_in: bool = False) -> Iterator[Raw]:
    """The library with ``model`` loaded; or the stand-in engine in a bare loop.

    Raises:
        RawFailed: It did not start.
    """
    command = [sys.executable, "-m", "benchmarks.raw_child", str(model)]
    log = bench.log_of("raw")
    environ = child_environ(bench.blas_env)
    began_s = time.perf_counter()
    with started([*command, *(["--stand-in"] * stand_in)], log, environ, talks=True) as process:
        yield Raw(process, log, began_s)
