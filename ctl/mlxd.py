"""Running ``mlxd`` for offline work: the log and the configuration belong to the daemon."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from ctl.app import App
from daemon.wire.errors import HANDLING, Code, Fault, MlxdError

_CODES: Final = {
    HANDLING[code].exit_code: code
    for code in (Code.INTERNAL, Code.INVALID_REQUEST, Code.NOT_FOUND, Code.CONFLICT)
}
"""What mlxd's exit codes mean, where it says no more than that."""


class Finished(msgspec.Struct, frozen=True):
    """A run of mlxd; ``fault`` is what it said went wrong, if it failed without a result."""

    code: int
    out: str
    fault: Fault | None


def run_mlxd(app: App, *arguments: str) -> Finished:
    """Run ``mlxd`` with these arguments, in this program's own installation."""
    # stderr is kept apart: with --json it must become a JSON object as any other failure.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "daemon", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=_environ(app),
    )
    out, said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    fault = None
    if done.returncode and not out:
        fault = _fault(done.returncode, said)
    elif said:
        app.note(said.rstrip("\n"))
    return Finished(done.returncode, out, fault)


def pass_through(app: App, *arguments: str) -> int:
    """Run ``mlxd`` and print what it prints; its exit code, with a failure reported."""
    done = run_mlxd(app, *arguments, *(["--json"] if app.as_json else []))
    if done.out:
        app.write(done.out)
    if done.fault is not None:
        app.fail(done.fault)
    return done.code


def result_of(app: App, *arguments: str) -> str:
    """What ``mlxd`` prints.

    Raises:
        MlxdError: It failed; the code is the one of its exit code.
    """
    done = run_mlxd(app, *arguments)
    if done.fault is not None:
        raise MlxdError.of(done.fault)
    return done.out


def _fault(code: int, said: str) -> Fault:
    """What mlxd said on stderr, as a failure of its own."""
    message = said.strip().removeprefix("mlxd: ")
    if message.startswith("Usage:"):
        message = message.rpartition("Error: ")[2]
    return Fault(
        code=_CODES.get(code, Code.INTERNAL),
        message=message or f"mlxd ended with exit code {code} and said nothing",
    )


def _environ(app: App) -> dict[str, str]:
    """This program's environment; a checkout that is not installed is found as it was here."""
    root = str(Path(__file__).resolve().parents[1])
    if root.endswith("site-packages"):
        return dict(app.environ)
    paths = [root, app.environ.get("PYTHONPATH", "")]
    return {**app.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
