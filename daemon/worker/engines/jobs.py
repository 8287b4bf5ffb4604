"""What engines share whose requests are not rows of a batch: each is worked off in pieces.

A job is an iterator: one step of the engine takes one piece of one job, in turn, so that
a long request holds nobody up for longer than a piece, and a cancel waits for no more.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from daemon.wire.data import (
    Audio,
    Begin,
    CountTokens,
    Done,
    Embeddings,
    Fail,
    Transcript,
    Usage,
    WorkRequest,
)
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.worker.engines.base import (
    Emission,
    Loaded,
    LoadRefused,
    Progress,
    failed,
    leave_memory_unwired,
    limit_cache,
    not_served,
    resident_bytes,
)
from daemon.worker.engines.folder import read_config
from daemon.worker.engines.weights import free_memory, held_bytes, naming_failures

log = structlog.get_logger()

JOBS_MAX: Final = 128
"""Requests in work and in line; further ones are refused as ``queue_full``."""

HELD_BYTES_MAX: Final = 256 << 20
"""Of the files of all requests in work and in line; beyond it further ones are refused as
``queue_full``, but never the only one."""

Frame = Embeddings | Audio | Transcript


class Job:
    """One request that was checked.

    Args:
        prompt_tokens: What it costs to read, in the model's own tokens; 0 where it has none.
        pieces: Frames as they come; None where a piece of work gave nothing to send yet.
            It may count ``completion_tokens`` up.
        held_bytes: What the request keeps in memory until it ends, such as a file.
    """

    def __init__(
        self,
        prompt_tokens: int,
        pieces: Callable[["Job"], Iterator[Frame | None]],
        held_bytes: int = 0,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.held_bytes = held_bytes
        self.completion_tokens = 0
        self.request_id = -1
        self._started_s: float | None = None
        self._pieces = pieces(self)

    def advance(self, now_s: float) -> Frame | None:
        """The next piece.

        Raises:
            StopIteration: There is none.
        """
        self._started_s = self._started_s or now_s
        return next(self._pieces)

    def usage(self, now_s: float) -> Usage:
        started_s = now_s if self._started_s is None else self._started_s
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            prefill_ms=round((now_s - started_s) * 1000),
        )


class JobModel:
    """A loaded model that turns requests into jobs.

    Attributes:
        does: What it does, as in "this model ...".
    """

    does = ""

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:  # noqa: ARG002
        """See :meth:`~daemon.worker.engines.base.Engine.ahead`."""
        return None

    def accept(self, request: WorkRequest) -> Job | None:
        """A request as a job, checked but for what takes long and :meth:`ahead` does; None if it
        is for another kind of model.

        Raises:
            MlxdError: What is wrong with it.
        """
        raise NotImplementedError


class JobEngine:
    """An :class:`~daemon.worker.engines.base.Engine` whose requests are jobs.

    Subclasses give :meth:`open_model`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._model: JobModel | None = None
        self._jobs: deque[Job] = deque()
        self._host_bytes = 0
        self._active_max = 1

    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        """Read the model in ``begin.path``, whose config.json is ``config``."""
        raise NotImplementedError

    def load(self, begin: Begin, progress: Progress) -> Loaded:
        leave_memory_unwired()
        limit_cache(begin.cache_bytes_max)
        self._host_bytes = resident_bytes()
        self._active_max = max(1, begin.rows_max)
        folder = Path(begin.path)
        config = read_config(folder, typed=False)
        if begin.adapter is not None:
            what = f'adapters do not go with models of kind "{begin.kind}"; leave it out'
            raise LoadRefused("incompatible", what)
        with naming_failures(folder):
            self._model = self.open_model(begin, config, progress)
        return Loaded(begin.context_tokens)

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        """Nothing is done ahead for a request that there is no room for."""
        return None if len(self._jobs) >= JOBS_MAX else self._open.ahead(request)

    def submit(self, request_id: int, request: WorkRequest) -> int:
        if len(self._jobs) >= JOBS_MAX:
            raise MlxdError(
                Code.QUEUE_FULL,
                f"{JOBS_MAX} requests already wait for this model; try again later",
            )
        try:
            job = self._open.accept(request)
        except MlxdError:
            raise
        except Exception as error:
            log.exception("request.failed", request=request_id)
            raise MlxdError.of(failed("preparing the request", error)) from error
        if job is None:
            raise not_served(request, self._open.does)
        self._check_room(job)
        job.request_id = request_id
        self._jobs.append(job)
        return job.prompt_tokens

    def count(self, request: CountTokens) -> int:
        raise not_served(request, self._open.does)

    def step(self) -> list[Emission]:
        """A piece of the job whose turn it is."""
        if not self._jobs:
            return []
        job = self._jobs[0]
        try:
            frame = job.advance(self._clock())
        except StopIteration:
            self._jobs.popleft()
            usage = job.usage(self._clock())
            return [Emission(job.request_id, (Done(finish_reason="stop", usage=usage),), usage)]
        except MlxdError as error:
            return [self._fail(job, error.fault)]
        except Exception as error:
            log.exception("request.failed", request=job.request_id)
            return [self._fail(job, failed("the request", error))]
        self._next_turn()
        return [] if frame is None else [Emission(job.request_id, (frame,))]

    def cancel(self, request_id: int) -> Usage | None:
        for job in self._jobs:
            if job.request_id == request_id:
                self._jobs.remove(job)
                return job.usage(self._clock())
        return None

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def memory_bytes(self) -> int:
        return self._host_bytes + held_bytes() + sum(job.held_bytes for job in self._jobs)

    def trim(self) -> None:
        free_memory()

    def put_away(self) -> bool:
        return False

    def close(self) -> None:
        self._jobs.clear()
        self._model = None
        free_memory()

    def _check_room(self, job: Job) -> None:
        held = sum(other.held_bytes for other in self._jobs)
        if held and job.held_bytes and held + job.held_bytes > HELD_BYTES_MAX:
            raise MlxdError(
                Code.QUEUE_FULL,
                f"the files of other requests for this model take {held >> 20} MiB already; "
                "try again later",
            )

    def _next_turn(self) -> None:
        """The job in front goes behind the others that are in work."""
        job = self._jobs.popleft()
        self._jobs.insert(min(self._active_max - 1, len(self._jobs)), job)

    def _fail(self, job: Job, fault: Fault) -> Emission:
        self._jobs.remove(job)
        return Emission(job.request_id, (Fail(fault=fault),), job.usage(self._clock()))

    @property
    def _open(self) -> JobModel:
        assert self._model is not None, "the engine is used before it is loaded"
        return self._model
