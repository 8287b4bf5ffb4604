"""Starting a worker process: its command, its scrubbed environment, its log file."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.logs import cut_back

LISTEN_TIMEOUT_S: Final = 60.0
"""From the spawn to the line that says it listens; a cold disk and a busy machine included."""

LISTENING_LINE: Final = b"ready\n"
LOG_BYTES_MAX: Final = 4 << 20
LOGS_MAX: Final = 32

_PASSED_ON: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "USER",
    "HF_HOME",
    "HF_HUB_CACHE",
    "XDG_CACHE_HOME",
    "MTL_HUD_ENABLED",
)
"""All that a worker sees of the daemon's environment: no keys, no proxies, no Python paths."""

_ALWAYS: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


class Launcher(msgspec.Struct, frozen=True):
    """How workers are started.

    Attributes:
        run_dir: Where they put their locks and sockets.
        logs_dir: Where their stderr goes, one file a worker id.
        command: What is run; the worker's id and folder are appended.
        env: The whole environment.
    """

    run_dir: Path
    logs_dir: Path
    command: tuple[str, ...]
    env: dict[str, str]

    def spawn(self, worker: str, yields: bool = False) -> subprocess.Popen[bytes]:
        """Start worker ``worker`` in a session of its own; its stdout is ours to read.

        Args:
            yields: Its imports leave the processor to others.
        """
        extra = ("--yields",) if yields else ()
        return self._start(worker, ("--worker", worker, *extra), subprocess.DEVNULL)

    def spawn_spare(self, spare: str) -> subprocess.Popen[bytes]:
        """Start a worker that imports its libraries and waits for :meth:`hand_over`.

        It ends when its standard input does: with this process at the latest.
        """
        return self._start(spare, ("--spare",), subprocess.PIPE)

    def hand_over(self, process: subprocess.Popen[bytes], spare: str, worker: str) -> None:
        """Let a spare be ``worker``, and its log that worker's.

        Raises:
            OSError: It has ended.
        """
        assert process.stdin is not None, "it came from spawn_spare"
        with suppress(FileNotFoundError):  # taken away to make room for newer ones
            self._log_of(spare).rename(self._log_of(worker))
        with process.stdin:
            process.stdin.write(f"{worker}\n".encode())

    def _start(self, name: str, arguments: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        bound_logs(self.logs_dir, self.run_dir)
        with self._log_of(name).open("ab") as log:
            return subprocess.Popen(
                [*self.command, *arguments, "--run-dir", os.fspath(self.run_dir)],
                bufsize=0,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )

    def _log_of(self, name: str) -> Path:
        return self.logs_dir / f"worker-{name}.log"


def bound_logs(logs_dir: Path, run_dir: Path) -> None:
    """Keep the newest worker logs, and of a long one the end.

    A worker that has its lock keeps its log, however long ago it last wrote. Logs are written
    in append mode, so that one which is cut back goes on behind that. What cannot be done is
    left: a spare's is renamed at any moment, and a disk can be full.
    """
    logs = sorted(logs_dir.glob("worker-*.log"), key=_changed_at)
    living = {lock.stem.removeprefix("w-") for lock in run_dir.glob("w-*.lock")}
    old = logs[: -LOGS_MAX + 1]
    gone = [log for log in old if log.stem.removeprefix("worker-") not in living]
    for log in gone:
        with suppress(OSError):
            log.unlink()
    for log in set(logs) - set(gone):
        with suppress(OSError):
            cut_back(log, LOG_BYTES_MAX, LOG_BYTES_MAX // 4)


def _changed_at(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


def worker_command() -> tuple[str, ...]:
    """This interpreter, isolated, running the worker."""
    return (sys.executable, "-I", "-m", "daemon.worker")


def worker_env(environ: Mapping[str, str], configured: Mapping[str, str]) -> dict[str, str]:
    """The scrubbed environment, with ``[worker] env`` on top."""
    passed_on = {name: environ[name] for name in _PASSED_ON if name in environ}
    return {**passed_on, **_ALWAYS, **configured}


async def wait_listening(process: subprocess.Popen[bytes]) -> None:
    """Wait for the one line that says the worker's socket is bound.

    Raises:
        MlxdError: ``worker_failed`` if it ended, or said something else, or took too long.
    """
    assert process.stdout is not None
    heard = b""
    try:
        with anyio.fail_after(LISTEN_TIMEOUT_S):
            while not heard.endswith(b"\n"):
                await anyio.wait_readable(process.stdout)
                chunk = os.read(process.stdout.fileno(), 64)
                if not chunk:
                    raise MlxdError(
                        Code.WORKER_FAILED, "the worker ended before it listened; see its log"
                    )
                heard += chunk
    except TimeoutError as error:
        raise MlxdError(
            Code.WORKER_FAILED, f"the worker did not listen within {LISTEN_TIMEOUT_S:.0f} s"
        ) from error
    finally:
        process.stdout.close()
    if heard != LISTENING_LINE:
        raise MlxdError(Code.WORKER_FAILED, f"the worker said {heard!r} instead of listening")
