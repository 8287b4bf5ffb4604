"""Processes of a bench: started in a block, measured, and ended by id whatever happens."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

END_TIMEOUT_S = 70.0
"""The daemon may take 60 s to retire its workers."""

_DROPPED = ("PYTHONDONTWRITEBYTECODE",)
"""With it every start would compile everything again, which is not what users have."""


def child_environ(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment for a child, able to keep compiled bytecode, offline, plus ``extra``."""
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **extra}


@contextmanager
def started(
    command: Sequence[str], log: Path, environ: Mapping[str, str], *, talks: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A child for the length of the block: terminated, waited for, killed as a last resort.

    Args:
        log: Where its stderr goes, appended; its stdout too, unless the block reads that.
        talks: The block reads its stdout and writes to its stdin.
    """
    with log.open("ab") as file:
        pipe = subprocess.PIPE if talks else None
        process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or file,
            stderr=file,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Have a child gone."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Last: a thread that still reads holds the stream's lock until the child has ended.
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far, all threads; counted in steps of 10 ms.

    Source: utime and stime, fields 14 and 15 of /proc/PID/stat (proc(5)); ``ps`` elsewhere.
    """
    if sys.platform == "linux":
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    minutes, _, seconds = _ps(pid, "time").rpartition(":")
    parts = [int(part) for part in minutes.replace("-", ":").split(":")]
    return 1000 * (float(seconds) + sum(60**n * part for n, part in enumerate(reversed(parts), 1)))


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in 10⁶ bytes."""
    if sys.platform == "linux":
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return int(_ps(pid, "rss")) * 1024 / 1e6


def alive(pid: int) -> bool:
    """Whether a process of this user with that id is there and is no zombie."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.returncode == 0 and not found.stdout.strip().startswith("Z")


def _ps(pid: int, field: str) -> str:
    command = ["ps", "-o", f"{field}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
