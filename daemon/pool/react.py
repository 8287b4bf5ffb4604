"""``react``: what the world must do about an event. Replaying a log reacts to nothing."""

from typing import assert_never

from daemon.pool import messages as m
from daemon.pool.loading import expected_load_ms
from daemon.pool.state import Busy, Draining, Idle, Loading, Pool, Stopping, residents


def react(pool: Pool, event: m.Event) -> tuple[m.AnyEffect, ...]:
    """Effects of ``event``, given the pool right after it."""
    if isinstance(event, m.SlotEvent):
        return _slot_event(pool, event)
    if isinstance(event, m.QueueEvent):
        return _queue_event(pool, event)
    if isinstance(event, m.UseEvent):
        return _use_event(pool, event)
    if isinstance(event, m.SpareStarted):
        return (m.StartSpare(spare=event.spare),)
    if isinstance(event, m.SpareEnded) and not event.why:
        return (m.EndSpare(spare=event.spare),)
    if isinstance(event, m.MemoryPressure) and event.trimmed:
        return tuple(m.TrimWorker(worker=slot.tenant.worker) for slot in residents(pool))
    return ()  # what is known of models, of the daemon and of its conditions


def _slot_event(pool: Pool, event: m.SlotEvent) -> tuple[m.AnyEffect, ...]:
    match event:
        case m.LoadStarted():
            yields = _others_run(pool)
            spawn = m.SpawnWorker(worker=event.worker, model=event.model, yields=yields)
            return (spawn, *_progress(pool, event.worker))
        case m.WorkerSpawned():
            return _begin(pool, event)
        case m.EvictStarted():
            return (m.DrainWorker(worker=event.worker),)
        case m.UnloadStarted():
            return _leave(pool, event)
        case m.LoadFailed():
            return (m.RetireWorker(worker=event.worker, reason=f"load failed: {event.reason}"),)
        case m.WorkerAdopted():
            return _resume_leaving(pool, event.worker)
        case (
            m.LoadReady()
            | m.WorkerExited()
            | m.EvictFinished()
            | m.EvictAbandoned()
            | m.UnloadFinished()
            | m.UnloadAbandoned()
            | m.UsageRecorded()
        ):
            return ()
        case _:
            assert_never(event)


def _queue_event(pool: Pool, event: m.QueueEvent) -> tuple[m.AnyEffect, ...]:
    match event:
        case m.WaiterQueued() | m.WaiterMoved():
            return (_queued(pool, event.waiter),)
        case m.RoomAwaited():
            return (m.ReadAhead(model=event.model),)
        case m.LoadAnswered():
            return (_loaded(pool, event),)
        case m.UnloadAnswered():
            return (
                m.AnswerUnloaded(
                    ticket=event.ticket, name=event.model, freed_bytes=event.freed_bytes
                ),
            )
        case m.TicketDone():
            return (m.AnswerDone(ticket=event.ticket, already=event.already),)
        case m.TicketRefused():
            return (m.AnswerRefused(ticket=event.ticket, fault=event.fault),)
        case (
            m.WaiterLeft()
            | m.UnloadAwaited()
            | m.RefusalCounted()
            | m.WishesAdded()
            | m.WishDropped()
        ):
            return ()
        case _:
            assert_never(event)


def _use_event(pool: Pool, event: m.UseEvent) -> tuple[m.AnyEffect, ...]:
    match event:
        case m.LeaseGranted():
            return (_granted(pool, event),)
        case m.LoadProgressed():
            return _progress(pool, event.worker)
        case m.DrainConfirmed():
            if event.how == "retiring":
                return ()
            reason = "unloaded" if event.how == "drained" else "it does not answer"
            return (m.RetireWorker(worker=event.worker, reason=reason),)
        case m.StrayReported():
            return (m.RetireWorker(worker=event.worker, reason=event.why),)
        case m.LeaseEnded() | m.RunningChanged() | m.MeasuredChanged() | m.SpeedChanged():
            return ()
        case _:
            assert_never(event)


def must_sync(event: m.Event) -> bool:
    """Whether ``event`` must be on disk before its effects and before any answer."""
    return isinstance(event, _SYNCED)


_SYNCED = (
    m.DaemonStarted
    | m.DaemonSettled
    | m.DaemonStopped
    | m.ConfigChanged
    | m.LoadStarted
    | m.WorkerSpawned
    | m.EvictStarted
    | m.UnloadStarted
    | m.ModelPinned
    | m.ModelUnpinned
    | m.ModelTtlChanged
    | m.ModelKept
    | m.ModelQuarantined
    | m.ModelUnquarantined
    | m.MemoryResidue
    | m.SafeModeEntered
    | m.SafeModeLeft
    | m.LogTailLost
)


def _begin(pool: Pool, event: m.WorkerSpawned) -> tuple[m.AnyEffect, ...]:
    slot = pool.slot_of(event.worker)
    if not isinstance(slot, Loading):
        return ()
    tenant = slot.tenant
    return (
        m.BeginLoad(
            worker=tenant.worker,
            model=tenant.model,
            kv_tokens=tenant.kv_tokens,
            rows_max=tenant.rows_max,
            yields=_others_run(pool),
        ),
    )


def _others_run(pool: Pool) -> bool:
    """Whether a load takes its processor time from requests that run."""
    return any(isinstance(slot, Busy) and slot.running > 0 for slot in pool.slots.values())


def _leave(pool: Pool, event: m.UnloadStarted) -> tuple[m.AnyEffect, ...]:
    if isinstance(pool.slot_of(event.worker), Stopping):  # a cancelled load: nothing to drain
        return (m.RetireWorker(worker=event.worker, reason=event.reason),)
    return (m.DrainWorker(worker=event.worker),)


def _resume_leaving(pool: Pool, worker: str) -> tuple[m.AnyEffect, ...]:
    """An adopted worker that an earlier daemon meant to end is told so again."""
    match pool.slot_of(worker):
        case Draining():
            return (m.DrainWorker(worker=worker),)
        case Stopping():
            return (m.RetireWorker(worker=worker, reason="unloaded"),)
        case _:
            return ()


def _progress(pool: Pool, worker: str) -> tuple[m.AnyEffect, ...]:
    slot = pool.slot_of(worker)
    if not isinstance(slot, Loading):
        return ()
    model = slot.tenant.model
    tickets = tuple(w.ticket for w in pool.waiters if w.option.model.key == model.key)
    if not tickets:
        return ()
    return (
        m.AnswerProgress(
            tickets=tickets,
            name=model.name,
            phase="loading",
            done_bytes=slot.done_bytes,
            total_bytes=model.weights_bytes,
            eta_ms=_eta_ms(pool, model.key),
        ),
    )


def _queued(pool: Pool, waiter: m.Waiter) -> m.AnyEffect:
    model = waiter.option.model
    slot = pool.slots.get(model.key)
    loading = isinstance(slot, Loading)
    return m.AnswerProgress(
        tickets=(waiter.ticket,),
        name=model.name,
        phase="loading" if loading else "queued",
        done_bytes=slot.done_bytes if isinstance(slot, Loading) else 0,
        total_bytes=model.weights_bytes,
        eta_ms=_eta_ms(pool, model.key),
    )


def _eta_ms(pool: Pool, key: str) -> int | None:
    return expected_load_ms(pool, key) if key in pool.learned else None


def _granted(pool: Pool, event: m.LeaseGranted) -> m.AnyEffect:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Idle | Busy)
    return m.AnswerGranted(
        ticket=event.ticket,
        lease=event.lease,
        model=slot.tenant.model,
        worker=event.worker,
        context_tokens=slot.service.context_tokens,
        waited_ms=event.waited_ms,
    )


def _loaded(pool: Pool, event: m.LoadAnswered) -> m.AnyEffect:
    slot = pool.slot_of(event.worker)
    assert isinstance(slot, Idle | Busy)
    return m.AnswerLoaded(
        ticket=event.ticket,
        model=slot.tenant.model,
        worker=event.worker,
        waited_ms=event.waited_ms,
        measured_bytes=slot.tenant.measured_bytes,
    )
