"""``decide``: what a command makes true. It never raises, reads no clock and does no I/O."""

from typing import assert_never

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.schedule import admit, load_ended_badly, settle
from daemon.pool.state import (
    LEASE_LAPSE_MS,
    MIN_RESIDENCY_MS,
    Busy,
    Draining,
    Failures,
    Idle,
    Loading,
    Pool,
    Slot,
    Stopping,
)
from daemon.wire.errors import Code


def decide(pool: Pool, command: m.AnyCommand, now_ms: int) -> m.Decision:
    """What ``command`` makes true of ``pool``; an empty decision changes nothing."""
    draft = Draft(pool, now_ms)
    match command:
        case m.Acquire() | m.Load():
            _ask(draft, command)
        case m.Unload():
            _unload(draft, command)
        case m.Release():
            _release(draft, command.leases, "released")
        case m.Withdraw():
            _withdraw(draft, command)
        case m.Tick():
            _expire(draft)
        case m.Start():
            _start(draft, command)
        case m.Stop():
            _stop(draft, command)
        case m.Stopped():
            draft.emit(m.DaemonStopped(generation=pool.generation, reason=command.reason))
        case _:
            _report(draft, command)
    settle(draft)
    return draft.decision()


def next_due_ms(pool: Pool, now_ms: int) -> int | None:
    """When a ``Tick`` can next change something; None: not before another command."""
    due: list[int] = [w.deadline_at_ms for w in pool.waiters if w.deadline_at_ms is not None]
    due += [
        lease.granted_at_ms + LEASE_LAPSE_MS for lease in pool.leases.values() if not lease.used
    ]
    for key, slot in pool.slots.items():
        if isinstance(slot, Loading):
            due.append(slot.progress_at_ms + pool.limits.load_stall_ms)
        if isinstance(slot, Idle):
            expires_at_ms = expiry_ms(pool, key, slot)
            if expires_at_ms is not None:
                due.append(expires_at_ms)
            if pool.waiters:
                due.append(slot.service.loaded_at_ms + MIN_RESIDENCY_MS)
    for waiter in pool.waiters:
        due.append(waiter.since_ms + MIN_RESIDENCY_MS)
        failures = pool.failures.get(waiter.option.model.key)
        if failures is not None:
            due.append(failures.retry_at_ms)
    return min((t for t in due if t > now_ms), default=None)


def expiry_ms(pool: Pool, key: str, slot: Idle) -> int | None:
    """When an idle model is unloaded for want of use; None: it stays."""
    if slot.tenant.ttl_ms is None or key in pool.pins:
        return None
    return slot.service.last_used_at_ms + slot.tenant.ttl_ms


# --- what clients ask ---------------------------------------------------------------


def _ask(draft: Draft, command: m.Acquire | m.Load) -> None:
    waiter = m.Waiter(
        ticket=command.ticket,
        client=command.client,
        option=command.options[0],
        rest=command.options[1:],
        passed_over=command.passed_over,
        lease=isinstance(command, m.Acquire),
        since_ms=draft.now_ms,
        deadline_at_ms=command.deadline_at_ms,
        ttl_ms=command.ttl_ms,
        pin=isinstance(command, m.Load) and command.pin,
        over_budget=isinstance(command, m.Load) and command.over_budget,
        reason=command.reason if isinstance(command, m.Load) else "acquire",
    )
    admit(draft, waiter)


def _unload(draft: Draft, command: m.Unload) -> None:
    slot = draft.pool.slots.get(command.key)
    match slot:
        case None:
            draft.refuse(
                command.ticket,
                Code.NOT_FOUND,
                f"{command.name} is not loaded; `mlxctl status` shows what is",
            )
        case Busy():
            draft.refuse(
                command.ticket,
                Code.CONFLICT,
                f"{command.name} is in use ({len(slot.leases)} leases, {slot.running} requests "
                "running); wait until it is idle, then unload it",
            )
        case Loading() | Idle():
            reason: m.UnloadReason = "cancelled" if isinstance(slot, Loading) else "request"
            _begin_unload(draft, slot, reason)
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case Draining() | Stopping():
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case _:
            assert_never(slot)


def _begin_unload(draft: Draft, slot: Loading | Idle, reason: m.UnloadReason) -> None:
    model = slot.tenant.model
    draft.emit(m.UnloadStarted(worker=slot.tenant.worker, model=model.name, reason=reason))
    if model.key in draft.pool.pins and reason in ("request", "cancelled"):
        draft.emit(m.ModelUnpinned(key=model.key, model=model.name))
    if isinstance(slot, Loading):
        load_ended_badly(
            draft, model.key, Code.CANCELLED, f"the load of {model.name} was cancelled"
        )


def _release(draft: Draft, leases: tuple[str, ...], how: str) -> None:
    for name in leases:
        lease = draft.pool.leases.get(name)
        if lease is not None:
            model = draft.pool.slots[lease.key].tenant.model.name
            draft.emit(
                m.LeaseEnded(
                    lease=name, model=model, how="lapsed" if how == "lapsed" else "released"
                )
            )


def _withdraw(draft: Draft, command: m.Withdraw) -> None:
    for waiter in draft.pool.waiters:
        if waiter.ticket in command.tickets:
            draft.emit(m.WaiterLeft(ticket=waiter.ticket))
            _cancel_load_nobody_wants(draft, waiter)
    for asker in draft.pool.unload_waiters:
        if asker.ticket in command.tickets:
            draft.emit(m.WaiterLeft(ticket=asker.ticket))


def _cancel_load_nobody_wants(draft: Draft, left: m.Waiter) -> None:
    """A load that a person asked for alone ends with their Ctrl-C; others go on."""
    slot = draft.pool.slots.get(left.option.model.key)
    wanted = any(w.option.model.key == left.option.model.key for w in draft.pool.waiters)
    if left.reason == "load" and not wanted and isinstance(slot, Loading) and slot.reason == "load":
        _begin_unload(draft, slot, "cancelled")


# --- the daemon's own life ------------------------------------------------------------


def _start(draft: Draft, command: m.Start) -> None:
    if command.tail_lost_bytes:
        draft.emit(m.LogTailLost(lost_bytes=command.tail_lost_bytes, kept_as=command.tail_kept_as))
    draft.emit(
        m.DaemonStarted(
            generation=draft.pool.generation + 1,
            pid=command.pid,
            boot_id=command.boot_id,
            version=command.version,
            budget_bytes=command.budget_bytes,
            memory_total_bytes=command.memory_total_bytes,
        )
    )


def _stop(draft: Draft, command: m.Stop) -> None:
    if draft.pool.stopping is None:
        draft.emit(m.StopBegan(reason=command.reason))
    for waiter in draft.pool.waiters:
        draft.refuse(
            waiter.ticket, Code.SHUTTING_DOWN, "mlxd is shutting down; ask again once it is back"
        )
    _unload_for_stop(draft)


def _unload_for_stop(draft: Draft) -> None:
    if draft.pool.stopping is None:
        return
    for slot in draft.pool.slots.values():
        if isinstance(slot, Loading | Idle):
            _begin_unload(draft, slot, "shutdown")


def _expire(draft: Draft) -> None:
    """What is due: lapsed leases, idle models past their TTL, loads that stalled."""
    lapsed = [
        name
        for name, lease in draft.pool.leases.items()
        if not lease.used and lease.granted_at_ms + LEASE_LAPSE_MS <= draft.now_ms
    ]
    _release(draft, tuple(lapsed), "lapsed")
    for key, slot in draft.pool.slots.items():
        if isinstance(slot, Loading):
            _fail_if_stalled(draft, slot)
        elif isinstance(slot, Idle):
            expires_at_ms = expiry_ms(draft.pool, key, slot)
            if expires_at_ms is not None and expires_at_ms <= draft.now_ms:
                _begin_unload(draft, slot, "ttl")
    _unload_for_stop(draft)


def _fail_if_stalled(draft: Draft, slot: Loading) -> None:
    stall_ms = draft.pool.limits.load_stall_ms
    if slot.progress_at_ms + stall_ms <= draft.now_ms:
        message = f"no progress for {stall_ms // 1000} s"
        _fail_load(draft, slot, "timeout", message)


# --- what workers report ----------------------------------------------------------------


def _report(draft: Draft, command: m.Report) -> None:
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
        case m.ReportRunning() | m.ReportMeasured():
            _service_report(draft, slot, command)
        case m.ReportDrained() | m.ReportStillBusy():
            _drain_report(draft, slot, command)
        case m.ReportAdopted():
            _adopted(draft, slot, command)
        case m.ReportUsage():
            _usage(draft, slot, command)
        case _:
            assert_never(command)


def _spawned(draft: Draft, slot: Slot, command: m.ReportSpawned) -> None:
    if isinstance(slot, Loading):
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
    name = slot.tenant.model.name
    if not isinstance(slot, Loading):
        return  # cancelled meanwhile: the slot is Stopping and its worker was told to end
    match command:
        case m.ReportProgress():
            draft.emit(
                m.LoadProgressed(
                    worker=command.worker,
                    model=name,
                    done_bytes=command.done_bytes,
                    total_bytes=command.total_bytes,
                )
            )
        case m.ReportReady():
            draft.emit(
                m.LoadReady(
                    worker=command.worker,
                    model=name,
                    measured_bytes=command.measured_bytes,
                    load_ms=command.load_ms,
                    context_tokens=command.context_tokens,
                )
            )
            _unload_for_stop(draft)
        case m.ReportLoadFailed():
            _fail_load(draft, slot, command.reason, command.message)


_FAILURE_CODES: dict[m.FailureReason, Code] = {
    "incompatible": Code.INCOMPATIBLE,
    "out_of_memory": Code.OVER_BUDGET,
    "timeout": Code.WORKER_FAILED,
    "crashed": Code.WORKER_FAILED,
    "daemon_restarted": Code.WORKER_FAILED,
}


def _fail_load(draft: Draft, slot: Loading, reason: m.FailureReason, message: str) -> None:
    model = slot.tenant.model
    draft.emit(
        m.LoadFailed(worker=slot.tenant.worker, model=model.name, reason=reason, message=message)
    )
    _quarantine_if_hopeless(draft, model)
    load_ended_badly(
        draft, model.key, _FAILURE_CODES[reason], f"{model.name} could not be loaded: {message}"
    )


def _quarantine_if_hopeless(draft: Draft, model: m.Model) -> None:
    failures: Failures | None = draft.pool.failures.get(model.key)
    if failures is None or failures.quarantined:
        return
    if len(failures.crashed_at_ms) >= draft.pool.limits.crashes_max:
        draft.emit(
            m.ModelQuarantined(
                key=model.key,
                model=model.name,
                failures=len(failures.crashed_at_ms),
                message=failures.message,
            )
        )


def _service_report(draft: Draft, slot: Slot, command: m.ReportRunning | m.ReportMeasured) -> None:
    name = slot.tenant.model.name
    if isinstance(command, m.ReportMeasured):
        draft.emit(
            m.MeasuredChanged(
                worker=command.worker, model=name, measured_bytes=command.measured_bytes
            )
        )
    elif isinstance(slot, Idle | Busy):
        draft.emit(
            m.RunningChanged(
                worker=command.worker, model=name, running=command.running, leases=command.leases
            )
        )
        _unload_for_stop(draft)


def _drain_report(draft: Draft, slot: Slot, command: m.ReportDrained | m.ReportStillBusy) -> None:
    if not isinstance(slot, Draining):
        return
    worker, name = slot.tenant.worker, slot.tenant.model.name
    if isinstance(command, m.ReportDrained):
        draft.emit(m.DrainConfirmed(worker=worker, model=name))
    elif slot.evicting:
        draft.emit(m.EvictAbandoned(worker=worker, model=name, running=command.running))
    else:
        draft.emit(m.UnloadAbandoned(worker=worker, model=name, running=command.running))
        for asker in draft.pool.unload_waiters:
            if asker.worker == worker:
                draft.refuse(
                    asker.ticket,
                    Code.CONFLICT,
                    f"{name} began serving a request; wait until it is idle, then unload it",
                )


def _exited(draft: Draft, slot: Slot, command: m.ReportExit) -> None:
    if isinstance(slot, Loading):
        _fail_load(draft, slot, "crashed", _how_it_ended(command))
    _end_leases(draft, slot)
    expected = command.blameless or not isinstance(slot, Idle | Busy)
    freed_bytes, worker, model = slot.tenant.claim_bytes, slot.tenant.worker, slot.tenant.model
    draft.emit(
        m.WorkerExited(
            worker=worker,
            model=model.name,
            expected=expected,
            exit_code=command.exit_code,
            signal=command.signal,
            said=command.said,
            running=slot.running if isinstance(slot, Busy) else 0,
        )
    )
    if not expected:
        _quarantine_if_hopeless(draft, model)
    if isinstance(slot, Draining | Stopping) and slot.evicting is not None:
        finished = m.EvictFinished if slot.evicting else m.UnloadFinished
        draft.emit(finished(worker=worker, model=model.name, freed_bytes=freed_bytes))
    for asker in draft.pool.unload_waiters:
        if asker.worker == worker:
            draft.emit(
                m.UnloadAnswered(ticket=asker.ticket, model=model.name, freed_bytes=freed_bytes)
            )


def _end_leases(draft: Draft, slot: Slot) -> None:
    key = slot.tenant.model.key
    for name, lease in draft.pool.leases.items():
        if lease.key == key:
            draft.emit(m.LeaseEnded(lease=name, model=slot.tenant.model.name, how="worker_gone"))


def _how_it_ended(command: m.ReportExit) -> str:
    if command.said is not None:
        return f"its worker ended while loading: {command.said}"
    if command.signal is not None:
        return f"its worker was ended by signal {command.signal} while loading"
    return f"its worker ended with exit code {command.exit_code} while loading"


def _adopted(draft: Draft, slot: Slot, command: m.ReportAdopted) -> None:
    """A worker that outlived its daemon; what it says of itself is the truth."""
    name = slot.tenant.model.name
    draft.emit(
        m.WorkerAdopted(
            worker=command.worker,
            model=name,
            pid=command.pid,
            measured_bytes=command.measured_bytes,
            running=command.running,
        )
    )
    slot = draft.pool.slots[slot.tenant.model.key]
    if isinstance(slot, Loading):
        if command.phase == "ready":
            draft.emit(
                m.LoadReady(
                    worker=command.worker,
                    model=name,
                    measured_bytes=command.measured_bytes,
                    load_ms=draft.now_ms - slot.since_ms,
                    context_tokens=command.context_tokens,
                )
            )
        else:
            _fail_load(draft, slot, "daemon_restarted", "the daemon restarted during its load")
        slot = draft.pool.slots[slot.tenant.model.key]
    if isinstance(slot, Idle | Busy) and command.running:
        draft.emit(
            m.RunningChanged(
                worker=command.worker, model=name, running=command.running, leases=command.leases
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
        )
    )
