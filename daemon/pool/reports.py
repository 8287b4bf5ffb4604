"""What workers report, in whatever order and however often they do."""

from typing import Literal, assert_never

from daemon.pool import messages as m
from daemon.pool.background import wish_back
from daemon.pool.draft import Draft
from daemon.pool.failing import MESSAGE_CHARS_MAX, fail_load, quarantine_if_hopeless
from daemon.pool.state import Busy, Draining, Idle, Loading, Slot, Stopping
from daemon.wire.errors import Code


def report(draft: Draft, command: m.Report) -> None:
    """Decide what follows from a report; one that fits no slot changes nothing."""
    if isinstance(command, m.ReportResidue):
        _residue(draft, command)
        return
    slot = draft.pool.slot_of(command.worker)
    if slot is None:
        if not isinstance(command, m.ReportExit | m.ReportUsage):
            why = "no slot is held for it"
            draft.emit(m.StrayReported(worker=command.worker, why=why))
        return
    match command:
        case m.ReportExit():
            _exited(draft, slot, command)
        case m.ReportSpawned():
            _spawned(draft, slot, command)
        case m.ReportProgress() | m.ReportReady() | m.ReportLoadFailed():
            _load_report(draft, slot, command)
        case m.ReportRunning() | m.ReportMeasured() | m.ReportSpeed():
            _service_report(draft, slot, command)
        case m.ReportDrained() | m.ReportStillBusy():
            _drain_report(draft, slot, command)
        case m.ReportAdopted():
            _adopted(draft, slot, command)
        case m.ReportUsage():
            _usage(draft, slot, command)
        case _:
            assert_never(command)


# --- loading ----------------------------------------------------------------------


def _spawned(draft: Draft, slot: Slot, command: m.ReportSpawned) -> None:
    if not isinstance(slot, Loading) or slot.tenant.process is not None:
        return
    if draft.pool.read_only is not None:
        # Without the record on disk it may not load: a restart would not know what was tried.
        message = f"its start could not be recorded ({draft.pool.read_only})"
        fail_load(draft, slot, "timeout", message)
    else:
        draft.emit(
            m.WorkerSpawned(
                worker=command.worker,
                pid=command.pid,
                start_time=command.start_time,
                boot_id=command.boot_id,
            )
        )


def _load_report(
    draft: Draft, slot: Slot, command: m.ReportProgress | m.ReportReady | m.ReportLoadFailed
) -> None:
    if not isinstance(slot, Loading):
        if isinstance(slot, Stopping) and isinstance(command, m.ReportReady):
            draft.emit(m.StrayReported(worker=command.worker, why="its load was given up"))
        return
    match command:
        case m.ReportProgress():
            _progressed(draft, slot, command)
        case m.ReportReady():
            _ready(draft, slot, command.measured_bytes, command.load_ms, command.context_tokens)
        case m.ReportLoadFailed():
            fail_load(draft, slot, command.reason, command.message)
        case _:
            assert_never(command)


def _progressed(draft: Draft, slot: Loading, command: m.ReportProgress) -> None:
    """Only bytes that were not there before are progress: a worker that repeats itself hangs."""
    if command.done_bytes > slot.done_bytes:
        draft.emit(
            m.LoadProgressed(
                worker=command.worker,
                model=slot.tenant.model.name,
                done_bytes=command.done_bytes,
                total_bytes=command.total_bytes,
            )
        )


def _ready(
    draft: Draft, slot: Loading, measured_bytes: int, load_ms: int, context_tokens: int
) -> None:
    draft.emit(
        m.LoadReady(
            worker=slot.tenant.worker,
            model=slot.tenant.model.name,
            measured_bytes=max(measured_bytes, 0),
            load_ms=max(load_ms, 0),
            context_tokens=context_tokens,
        )
    )


# --- serving ----------------------------------------------------------------------


def _service_report(
    draft: Draft, slot: Slot, command: m.ReportRunning | m.ReportMeasured | m.ReportSpeed
) -> None:
    name = slot.tenant.model.name
    match command:
        case m.ReportMeasured():
            measured_bytes = max(command.measured_bytes, 0)
            draft.emit(
                m.MeasuredChanged(worker=command.worker, model=name, measured_bytes=measured_bytes)
            )
        case m.ReportSpeed():
            tokens_per_s = max(command.tokens_per_s, 0.0)
            draft.emit(m.SpeedChanged(worker=command.worker, model=name, tokens_per_s=tokens_per_s))
        case m.ReportRunning():
            if isinstance(slot, Idle | Busy):
                _running(draft, slot, command.running, command.leases)
        case _:
            assert_never(command)


def _running(draft: Draft, slot: Idle | Busy, running: int, leases: tuple[str, ...]) -> None:
    draft.emit(
        m.RunningChanged(
            worker=slot.tenant.worker,
            model=slot.tenant.model.name,
            running=max(running, 0),
            leases=leases,
        )
    )


def _usage(draft: Draft, slot: Slot, command: m.ReportUsage) -> None:
    model = slot.tenant.model
    draft.emit(
        m.UsageRecorded(
            key=model.key,
            model=model.name,
            window_ms=command.window_ms,
            requests=command.requests,
            prompt_tokens=command.prompt_tokens,
            completion_tokens=command.completion_tokens,
            busy_ms=command.busy_ms,
            arrivals=command.arrivals,
            arrivals_dropped=command.arrivals_dropped,
            waits=slot.tenant.waits,
        )
    )


# --- leaving ----------------------------------------------------------------------


def _drain_report(draft: Draft, slot: Slot, command: m.ReportDrained | m.ReportStillBusy) -> None:
    if not isinstance(slot, Draining):
        return
    worker, name = slot.tenant.worker, slot.tenant.model.name
    if isinstance(command, m.ReportDrained):
        draft.emit(m.DrainConfirmed(worker=worker, model=name))
        return
    running = max(command.running, 1)  # it says that it is busy: its next report corrects this
    if slot.evicting:
        draft.emit(m.EvictAbandoned(worker=worker, model=name, running=running))
    else:
        draft.emit(m.UnloadAbandoned(worker=worker, model=name, running=running))
    draft.emit(m.RunningChanged(worker=worker, model=name, running=running, leases=()))
    for asker in draft.pool.unload_waiters:
        if asker.worker == worker:
            message = f"{name} began serving a request; wait until it is idle, then unload it"
            draft.refuse(asker.ticket, Code.CONFLICT, message)


def _exited(draft: Draft, slot: Slot, command: m.ReportExit) -> None:
    if isinstance(slot, Loading):
        # One that was never heard of since a restart went down with the daemon it served.
        reason: m.FailureReason = "daemon_restarted" if slot.inherited else "crashed"
        fail_load(draft, slot, reason, _how_it_ended(command))
    _end_leases(draft, slot)
    expected = command.blameless or not isinstance(slot, Idle | Busy)
    worker, model = slot.tenant.worker, slot.tenant.model
    draft.emit(
        m.WorkerExited(
            worker=worker,
            model=model.name,
            expected=expected,
            exit_code=command.exit_code,
            signal=command.signal,
            said=None if command.said is None else command.said[:MESSAGE_CHARS_MAX],
            running=slot.running if isinstance(slot, Busy) else 0,
        )
    )
    quarantine_if_hopeless(draft, model)
    _tell_unloaded(draft, slot)
    wish_back(draft, model.key, was_used=isinstance(slot, Busy))


def _tell_unloaded(draft: Draft, slot: Slot) -> None:
    worker, name = slot.tenant.worker, slot.tenant.model.name
    freed_bytes = slot.tenant.claim_bytes
    if isinstance(slot, Draining | Stopping) and slot.why != "failed":
        finished = m.EvictFinished if slot.evicting else m.UnloadFinished
        draft.emit(finished(worker=worker, model=name, freed_bytes=freed_bytes))
    for asker in draft.pool.unload_waiters:
        if asker.worker == worker:
            draft.emit(m.UnloadAnswered(ticket=asker.ticket, model=name, freed_bytes=freed_bytes))


def _end_leases(draft: Draft, slot: Slot) -> None:
    if isinstance(slot, Busy):
        for name in sorted(slot.leases):
            draft.emit(m.LeaseEnded(lease=name, model=slot.tenant.model.name, how="worker_gone"))


def _how_it_ended(command: m.ReportExit) -> str:
    if command.said is not None:
        return f"its worker ended while loading: {command.said}"
    if command.signal is not None:
        return f"its worker was ended by signal {command.signal} while loading"
    return f"its worker ended with exit code {command.exit_code} while loading"


def _residue(draft: Draft, command: m.ReportResidue) -> None:
    """Memory that a worker, gone or about to be reported so, has not given back."""
    run, slot = draft.pool.run, draft.pool.slot_of(command.worker)
    if command.residue_bytes > 0:
        draft.emit(
            m.MemoryResidue(
                worker=command.worker,
                model="" if slot is None else slot.tenant.model.name,
                residue_bytes=command.residue_bytes,
                boot_id="" if run is None else run.boot_id,
            )
        )


# --- adoption ---------------------------------------------------------------------


def _adopted(draft: Draft, slot: Slot, command: m.ReportAdopted) -> None:
    """A worker that outlived its daemon; what it says of itself is the truth."""
    key, worker = slot.tenant.model.key, command.worker
    draft.emit(
        m.WorkerAdopted(
            worker=worker,
            model=slot.tenant.model.name,
            pid=command.pid,
            measured_bytes=max(command.measured_bytes, 0),
            running=max(command.running, 0),
        )
    )
    slot = draft.pool.slots[key]
    if isinstance(slot, Loading):
        if command.phase == "ready":
            load_ms = draft.now_ms - slot.since_ms
            _ready(draft, slot, command.measured_bytes, load_ms, command.context_tokens)
        else:
            message = "the daemon restarted during its load"
            fail_load(draft, slot, "daemon_restarted", message)
        slot = draft.pool.slots[key]
    if isinstance(slot, Idle) and command.phase == "draining":
        _let_retire(draft, slot, command.running)
    elif isinstance(slot, Idle | Busy) and command.running > 0:
        _running(draft, slot, command.running, command.leases)


def _let_retire(draft: Draft, slot: Idle, running: int) -> None:
    """It has closed admission: nobody new gets it.

    With requests it was told to end, and does so once they have. Without, it may have been
    drained only, by a daemon that died before it could tell it.
    """
    worker, model = slot.tenant.worker, slot.tenant.model
    draft.emit(m.UnloadStarted(worker=worker, model=model.name, reason="shutdown"))
    how: Literal["retiring", "drained"] = "retiring" if running > 0 else "drained"
    draft.emit(m.DrainConfirmed(worker=worker, model=model.name, how=how))
