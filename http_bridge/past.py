"""The pool as it was after each of many records, asked of ``mlxd history film``.

The past belongs to the daemon's code, but not to its process: reading it takes as long as it
takes, and answers to everybody else must not wait for that.
"""

import subprocess
import sys
from typing import Any, Final

import anyio
import msgspec

from daemon.wire.errors import HANDLING, Code, MlxdError
from daemon.wire.records import Event, ModelNames, Record
from http_bridge.told import told

STILLS_MAX: Final = 2000
TIMEOUT_S: Final = 30.0


class _Model(msgspec.Struct, frozen=True):
    name: str
    worker: str
    state: str
    claim_bytes: int
    measured_bytes: int
    pinned: bool


class _Still(msgspec.Struct, frozen=True):
    seq: int
    at_ms: int
    cause: dict[str, Any]
    events: tuple[Event, ...]
    budget_bytes: int
    committed_bytes: int
    models: tuple[_Model, ...]


_decoder: Final = msgspec.json.Decoder(_Still)


class Past:
    """Reads the past, once at a time."""

    def __init__(self) -> None:
        self._one = anyio.Semaphore(1)

    async def read(self, *, after: int | None, before: int | None, limit: int) -> list[Any]:
        """Records in order, each told, with the pool after it.

        Args:
            after: Those after this record; None takes the last ones before ``before``.
            before: Those before this record; None takes all there are.

        Raises:
            MlxdError: The log cannot be read, or not in time.
        """
        bounds = [("--after", after), ("--before", before), ("--limit", limit)]
        options = [part for name, value in bounds if value is not None for part in (name, value)]
        command = [sys.executable, "-P", "-m", "daemon", "history", "film", *map(str, options)]
        try:
            with anyio.fail_after(TIMEOUT_S):
                async with self._one:
                    done = await anyio.run_process(
                        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
                    )
        except TimeoutError as error:
            raise MlxdError(
                Code.DEADLINE, f"the event log was not read within {TIMEOUT_S:g} s; ask for less"
            ) from error
        if done.returncode:
            raise _failure(done.returncode, done.stderr.decode(errors="replace"))
        return _shown(done.stdout.splitlines())


def _shown(lines: list[bytes]) -> list[dict[str, Any]]:
    names, shown = ModelNames({}), []
    for line in lines:
        still = _decoder.decode(line)
        record = Record(seq=still.seq, at_ms=still.at_ms, cause=still.cause, events=still.events)
        names.learn(record)
        names.learn_workers({model.worker: model.name for model in still.models})
        shown.append(
            {
                **told(record, names),
                "budget_bytes": still.budget_bytes,
                "committed_bytes": still.committed_bytes,
                "models": [msgspec.structs.asdict(model) for model in still.models],
            }
        )
    return shown


def _failure(exit_code: int, said: str) -> MlxdError:
    codes = {HANDLING[code].exit_code: code for code in (Code.NOT_FOUND, Code.INVALID_REQUEST)}
    message = said.strip().removeprefix("mlxd: ") or f"mlxd history ended with {exit_code}"
    return MlxdError(codes.get(exit_code, Code.INTERNAL), message)
