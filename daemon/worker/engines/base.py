"""What every engine gives the worker, whatever library it stands on.

An engine lives on the worker's main thread: it is loaded, fed, stepped and closed there
and nowhere else, because MLX ties arrays to the thread whose stream made them. It holds
no socket and knows no connection; requests are numbers that the worker chose.
"""

import os
import re
import resource
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Final, Literal, Protocol

import msgspec

from daemon.wire.data import (
    Audio,
    Begin,
    CountTokens,
    Delta,
    Done,
    Embeddings,
    Fail,
    Transcript,
    Usage,
    WorkRequest,
)
from daemon.wire.errors import Code, Fault, MlxdError

LoadReason = Literal["incompatible", "out_of_memory"]

Progress = Callable[[int, int], None]
"""Called with (done_bytes, total_bytes) while weights are read; may raise LoadCancelled."""


class LoadRefused(Exception):
    """The model cannot be loaded; ``message`` names the cause and the file."""

    def __init__(self, reason: LoadReason, message: str) -> None:
        super().__init__(message)
        self.reason: LoadReason = reason
        self.message = message


class LoadCancelled(Exception):
    """Raised out of a progress call: the worker was told to stop while it was loading."""


class Loaded(msgspec.Struct, frozen=True):
    """What loading established.

    Attributes:
        context_tokens: Longest prompt + answer that one request may have.
    """

    context_tokens: int


class Emission(msgspec.Struct, frozen=True):
    """What one step gave one request.

    Attributes:
        frames: In order; a terminal frame, if any, is the last.
        usage: Set exactly when the request has ended with this step.
    """

    request_id: int
    frames: tuple[Delta | Embeddings | Audio | Transcript | Done | Fail, ...]
    usage: Usage | None = None


class Engine(Protocol):
    """One loaded model and the requests that run on it."""

    def load(self, begin: Begin, progress: Progress) -> Loaded:
        """Read the model.

        Raises:
            LoadRefused: It cannot be loaded, and why.
            LoadCancelled: As raised by ``progress``.
        """
        ...

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        """Work for another thread before the request is submitted or counted, such as
        decoding its pictures or checking its sound: it gives the same request with that done;
        None if there is none.

        Raises:
            MlxdError: From the work, what is wrong with the request.
        """
        ...

    def submit(self, request_id: int, request: WorkRequest) -> int:
        """Check a request completely and put it in line.

        Returns:
            The number of prompt tokens.

        Raises:
            MlxdError: What is wrong with it; nothing of it is kept.
        """
        ...

    def count(self, request: CountTokens) -> int:
        """Prompt tokens that a conversation would have.

        Raises:
            MlxdError: What is wrong with it, or that this kind of model has no conversations.
        """
        ...

    def step(self) -> list[Emission]:
        """A bounded piece of work: of generation, one decode step for every running row and
        then at most one prefill chunk."""
        ...

    def cancel(self, request_id: int) -> Usage | None:
        """Forget a request before the next step; None if it is not known (any more)."""
        ...

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits, so that another step is due."""
        ...

    def memory_bytes(self) -> int:
        """What this process holds for the model now."""
        ...

    def trim(self) -> None:
        """Drop what is only kept for later requests: cached prefixes, freed buffers."""
        ...

    def put_away(self) -> bool:
        """A bounded piece of work that can wait until no request does, such as writing what
        should outlive the worker; False if there is none."""
        ...

    def close(self) -> None:
        """Free the model; the engine is of no use afterwards."""
        ...


Registry = Mapping[str, Callable[[], Engine]]
"""Engine kind, as in :class:`Begin`, to a function that imports and makes the engine."""

_SERVED_BY: Final = {
    "Generate": "a text or vision",
    "CountTokens": "a text or vision",
    "Embed": "an embeddings",
    "Speak": "a speech",
    "Transcribe": "a transcription",
}


def not_served(request: WorkRequest, what: str) -> MlxdError:
    """The refusal of a request that is for another kind of model.

    Args:
        what: What this model does instead, as in "this model ...".
    """
    kind = _SERVED_BY[type(request).__name__]
    return MlxdError(
        Code.INVALID_REQUEST, f"this model {what}; use {kind} model for this", field="model"
    )


def failed(doing: str, error: Exception) -> Fault:
    """What a client is told of an exception that is no fault of its request.

    Args:
        doing: What was done, as in "decoding the answer".
    """
    return Fault(
        code=Code.WORKER_FAILED, message=f"{doing} failed: {type(error).__name__}: {error}"
    )


_OUT_OF_MEMORY: Final = re.compile(
    r"unable to allocate|out ?of ?memory|insufficient memory|attempting to allocate|"
    r"cannot allocate memory|bad_alloc",
    re.IGNORECASE,
)
"""How MLX and the allocators below it say that memory is short (mlx backend sources:
``[malloc] Unable to allocate``, ``[metal::malloc] Attempting to allocate``, Metal's
``kIOGPUCommandBufferCallbackErrorOutOfMemory``)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of MLX says that memory ran out."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def leave_memory_unwired() -> None:
    """Make ``mx.set_wired_limit`` a no-op, before a library that calls it is used.

    mlx_lm and mlx_vlm wire the whole recommended working set in each process that makes
    a batch generator; several workers doing so is how Macs run out of memory that can be
    paged and panic.
    """
    import mlx.core as mx  # noqa: PLC0415  (the worker listens before it imports mlx)

    def set_wired_limit(limit: int) -> int:  # noqa: ARG001  (the signature is mlx's)
        return 0

    mx.set_wired_limit = set_wired_limit


def limit_cache(cache_bytes_max: int) -> None:
    """Bound the buffers that MLX keeps after they were freed (Metal's default is its limit)."""
    import mlx.core as mx  # noqa: PLC0415

    mx.set_cache_limit(cache_bytes_max)


def resident_bytes() -> int:
    """Most memory that this process has held so far (getrusage; KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_facts() -> dict[str, Any]:
    """What MLX and the machine say of themselves, for ``--probe``.

    Returns:
        ``memory_size`` and ``recommended_working_set_bytes`` in bytes (the latter None
        without a GPU), ``device_name``, ``architecture``, ``backend`` ("metal", "cuda" or
        "cpu") and ``mlx`` (its version).
    """
    import mlx.core as mx  # noqa: PLC0415

    info = mx.device_info()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if mx.metal.is_available():
        backend = "metal"
    else:
        backend = "cuda" if mx.default_device().type == mx.DeviceType.gpu else "cpu"
    return {
        "memory_size": int(info.get("memory_size", physical)),
        "recommended_working_set_bytes": info.get("max_recommended_working_set_size"),
        "device_name": str(info.get("device_name", "unknown")),
        "architecture": str(info.get("architecture", "unknown")),
        "backend": backend,
        "mlx": metadata.version("mlx"),
    }
