"""Effects: what the world must do. Outcomes come back only as commands."""

from typing import Literal

import msgspec

from daemon.pool.shapes import Model
from daemon.wire.errors import Fault


class Effect(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what the world must do; outcomes come back only as commands."""


class SpawnWorker(Effect, tag="spawn_worker", frozen=True, kw_only=True):
    """Attributes: ``yields`` while other models answer requests."""

    worker: str
    model: Model
    yields: bool = False


class BeginLoad(Effect, tag="begin_load", frozen=True, kw_only=True):
    """``worker.spawned`` is durable: the worker may load."""

    worker: str
    model: Model
    kv_tokens: int
    rows_max: int
    yields: bool = False


class DrainWorker(Effect, tag="drain_worker", frozen=True, kw_only=True):
    worker: str


class TrimWorker(Effect, tag="trim_worker", frozen=True, kw_only=True):
    """Memory is short: what it only keeps for later is to go."""

    worker: str


class RetireWorker(Effect, tag="retire_worker", frozen=True, kw_only=True):
    worker: str
    reason: str


class StartSpare(Effect, tag="start_spare", frozen=True, kw_only=True):
    """Start a process that the next :class:`SpawnWorker` can take."""

    spare: str


class EndSpare(Effect, tag="end_spare", frozen=True, kw_only=True):
    spare: str


class ReadAhead(Effect, tag="read_ahead", frozen=True, kw_only=True):
    """The model's load waits for workers that stop: its weights may be read meanwhile."""

    model: Model


class AnswerGranted(Effect, tag="answer_granted", frozen=True, kw_only=True):
    ticket: int
    lease: str
    model: Model
    worker: str
    context_tokens: int
    waited_ms: int


class AnswerLoaded(Effect, tag="answer_loaded", frozen=True, kw_only=True):
    ticket: int
    model: Model
    worker: str
    waited_ms: int
    measured_bytes: int


class AnswerUnloaded(Effect, tag="answer_unloaded", frozen=True, kw_only=True):
    ticket: int
    name: str
    freed_bytes: int


class AnswerDone(Effect, tag="answer_done", frozen=True, kw_only=True):
    """What was asked is so, and durable; ``already``: it was before."""

    ticket: int
    already: bool = False


class AnswerRefused(Effect, tag="answer_refused", frozen=True, kw_only=True):
    ticket: int
    fault: Fault


class AnswerProgress(Effect, tag="answer_progress", frozen=True, kw_only=True):
    """Everyone who waits for ``model`` is told how far its load is."""

    tickets: tuple[int, ...]
    name: str
    phase: Literal["queued", "loading"]
    done_bytes: int
    total_bytes: int
    eta_ms: int | None


AnyEffect = (
    SpawnWorker
    | BeginLoad
    | DrainWorker
    | TrimWorker
    | RetireWorker
    | StartSpare
    | EndSpare
    | ReadAhead
    | AnswerGranted
    | AnswerLoaded
    | AnswerUnloaded
    | AnswerDone
    | AnswerRefused
    | AnswerProgress
)
