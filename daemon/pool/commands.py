"""Commands: what clients ask, what workers report, what time and the daemon's life bring."""

from typing import Literal

import msgspec

from daemon.pool.shapes import (
    AskedIdle,
    FailureReason,
    Limits,
    Option,
    PassedOver,
    PressureLevel,
    Wish,
)


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of commands. ``ticket`` names who waits for the answer."""


class Acquire(Command, tag="acquire", frozen=True, kw_only=True):
    """Give a lease on the first of ``options`` that serves, loading it if need be.

    Attributes:
        options: One model, or those that an alias names, in order; never empty.
        passed_over: Options whose folders were found unusable before this command.
        ttl_ms: Idle time for this model from now on, if given.
    """

    ticket: int
    client: str
    options: tuple[Option, ...]
    passed_over: tuple[PassedOver, ...] = ()
    deadline_at_ms: int
    ttl_ms: AskedIdle = None
    priority: int = 0


class Load(Command, tag="load", frozen=True, kw_only=True):
    """Make a model resident and answer when it is."""

    ticket: int
    client: str
    options: tuple[Option, ...]
    passed_over: tuple[PassedOver, ...] = ()
    deadline_at_ms: int | None = None
    ttl_ms: AskedIdle = None
    pin: bool = False
    over_budget: bool = False


class Unload(Command, tag="unload", frozen=True, kw_only=True):
    """Unload ``model``, which a person named as ``name``."""

    ticket: int
    client: str
    key: str
    name: str


class Evict(Command, tag="evict", frozen=True, kw_only=True):
    """Take ``model`` out of memory as the policy would: not if pinned or in use."""

    ticket: int
    client: str
    key: str
    name: str


class Pin(Command, tag="pin", frozen=True, kw_only=True):
    """Never evict, never expire ``name``, which need not be resident."""

    ticket: int
    client: str
    key: str
    name: str


class Unpin(Command, tag="unpin", frozen=True, kw_only=True):
    ticket: int
    client: str
    key: str
    name: str


class SetTtl(Command, tag="set_ttl", frozen=True, kw_only=True):
    """Unload ``name`` after so long without use; None keeps it."""

    ticket: int
    client: str
    key: str
    name: str
    ttl_ms: int | None


class Unquarantine(Command, tag="unquarantine", frozen=True, kw_only=True):
    """Forget what failed with ``name``: it may be tried again at once."""

    ticket: int
    client: str
    key: str
    name: str


class ClearSafeMode(Command, tag="clear_safe_mode", frozen=True, kw_only=True):
    ticket: int
    client: str


class Configure(Command, tag="configure", frozen=True, kw_only=True):
    """The configuration was read again, and ``keys`` of it changed.

    Attributes:
        ticket: Who waits to hear that it is done; None for a reload by signal.
    """

    ticket: int | None = None
    limits: Limits
    keys: tuple[str, ...]


class Release(Command, tag="release", frozen=True, kw_only=True):
    """Leases end: by request or with the connection that held them."""

    leases: tuple[str, ...]


class Withdraw(Command, tag="withdraw", frozen=True, kw_only=True):
    """The asker of these tickets no longer waits."""

    tickets: tuple[int, ...]


class ReportSpawned(Command, tag="report_spawned", frozen=True, kw_only=True):
    """The worker's process lives, holds its lock and answered on its socket."""

    worker: str
    pid: int
    start_time: float
    boot_id: str


class ReportProgress(Command, tag="report_progress", frozen=True, kw_only=True):
    worker: str
    done_bytes: int
    total_bytes: int


class ReportReady(Command, tag="report_ready", frozen=True, kw_only=True):
    worker: str
    measured_bytes: int
    load_ms: int
    context_tokens: int


class ReportLoadFailed(Command, tag="report_load_failed", frozen=True, kw_only=True):
    worker: str
    reason: FailureReason
    message: str


class ReportRunning(Command, tag="report_running", frozen=True, kw_only=True):
    """What the worker runs now, and the leases that its requests named."""

    worker: str
    running: int
    leases: tuple[str, ...] = ()


class ReportMeasured(Command, tag="report_measured", frozen=True, kw_only=True):
    worker: str
    measured_bytes: int


class ReportSpeed(Command, tag="report_speed", frozen=True, kw_only=True):
    """How fast the worker writes, over the last seconds in which it did."""

    worker: str
    tokens_per_s: float


class ReportDrained(Command, tag="report_drained", frozen=True, kw_only=True):
    worker: str


class ReportStillBusy(Command, tag="report_still_busy", frozen=True, kw_only=True):
    worker: str
    running: int


class ReportExit(Command, tag="report_exit", frozen=True, kw_only=True):
    """The worker's process is gone.

    Attributes:
        exit_code: None for a worker that was adopted, or ended by a signal.
        said: Its own parting word, where it sent one.
        blameless: It ended through no fault of its model: the machine restarted.
    """

    worker: str
    blameless: bool = False
    exit_code: int | None = None
    signal: int | None = None
    said: str | None = None


class ReportAdopted(Command, tag="report_adopted", frozen=True, kw_only=True):
    """A worker of an earlier daemon was found alive and its link is up."""

    worker: str
    pid: int
    phase: Literal["waiting", "loading", "ready", "draining"]
    measured_bytes: int = 0
    context_tokens: int = 0
    running: int = 0
    leases: tuple[str, ...] = ()


class ReportUsage(Command, tag="report_usage", frozen=True, kw_only=True):
    """Finished requests of one worker's model, gathered over at most a minute."""

    worker: str
    window_ms: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    busy_ms: int
    arrivals: tuple[tuple[int, int], ...] = ()
    arrivals_dropped: int = 0


class ReportResidue(Command, tag="report_residue", frozen=True, kw_only=True):
    """A worker's process is gone, and so much of its memory has not come back."""

    worker: str
    residue_bytes: int


class ReportPressure(Command, tag="report_pressure", frozen=True, kw_only=True):
    """How short of memory the machine is, as the system says."""

    level: PressureLevel


class ReportSpareEnded(Command, tag="report_spare_ended", frozen=True, kw_only=True):
    """The process that waited for a load has ended, and nobody had told it to."""

    spare: str
    why: str


class ReportClockJump(Command, tag="report_clock_jump", frozen=True, kw_only=True):
    """The wall clock went ahead of the monotonic one: the machine slept.

    ``now_ms`` of this command is after the jump.
    """

    by_ms: int


class ReportLog(Command, tag="report_log", frozen=True, kw_only=True):
    """Whether the event log can be written; ``blocked`` says why not."""

    blocked: str | None


class Tick(Command, tag="tick", frozen=True, kw_only=True):
    """Time has passed: something may be due."""


class Start(Command, tag="start", frozen=True, kw_only=True):
    """This daemon begins its run, perhaps with a torn tail cut off the log."""

    pid: int
    boot_id: str
    version: str
    budget_bytes: int
    memory_total_bytes: int
    limits: Limits | None = None
    """None: the pool's own, with ``budget_bytes``."""
    tail_lost_bytes: int = 0
    tail_kept_as: str = ""


class Stop(Command, tag="stop", frozen=True, kw_only=True):
    """No new leases; unload what is idle, and what becomes idle."""

    reason: str


class Detach(Command, tag="detach", frozen=True, kw_only=True):
    """Stop the daemon and leave its workers for the next one to adopt."""

    reason: str


class Restore(Command, tag="restore", frozen=True, kw_only=True):
    """Load these behind real requests, one after the other, where they fit as they are."""

    wishes: tuple[Wish, ...]


class Stopped(Command, tag="stopped", frozen=True, kw_only=True):
    """The daemon is about to exit in good order."""

    reason: str


Verb = Evict | Pin | Unpin | SetTtl | Unquarantine | ClearSafeMode
ClientCommand = Acquire | Load | Unload | Release | Withdraw | Verb
Report = (
    ReportSpawned
    | ReportProgress
    | ReportReady
    | ReportLoadFailed
    | ReportRunning
    | ReportMeasured
    | ReportSpeed
    | ReportDrained
    | ReportStillBusy
    | ReportExit
    | ReportAdopted
    | ReportUsage
    | ReportResidue
)
MachineReport = ReportPressure | ReportClockJump | ReportLog | ReportSpareEnded
OwnCommand = Tick | Start | Stop | Detach | Stopped | Configure | Restore
AnyCommand = ClientCommand | Report | MachineReport | OwnCommand
