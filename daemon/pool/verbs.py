"""What clients ask for: use of a model, and the verbs of people."""

from typing import assert_never

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.eviction import candidates_of
from daemon.pool.leaving import begin_eviction, begin_unload
from daemon.pool.schedule import READ_ONLY_RETRY_MS, admit, load_ended_badly, read_only_message
from daemon.pool.state import Busy, Draining, Idle, Loading, Stopping, has_asked_ttl
from daemon.wire.errors import Code
from daemon.wire.units import counted


def client_command(draft: Draft, command: m.ClientCommand) -> None:
    """Decide what a client asked for."""
    match command:
        case m.Acquire() | m.Load():
            _ask(draft, command)
        case m.Release():
            _release(draft, command)
        case m.Withdraw():
            _withdraw(draft, command)
        case (
            m.Unload()
            | m.Evict()
            | m.Pin()
            | m.Unpin()
            | m.SetTtl()
            | m.Unquarantine()
            | m.ClearSafeMode()
        ):
            _verb(draft, command)
        case _:
            assert_never(command)


def _verb(draft: Draft, command: m.Unload | m.Verb) -> None:
    """What is recorded, and answered once it is."""
    if draft.pool.read_only is not None:
        draft.refuse(
            command.ticket,
            Code.READ_ONLY,
            read_only_message(draft.pool),
            retry_after_ms=READ_ONLY_RETRY_MS,
        )
        return
    match command:
        case m.Unload():
            _unload(draft, command)
        case m.Evict():
            _evict(draft, command)
        case m.Pin() | m.Unpin():
            _pin(draft, command)
        case m.SetTtl():
            _set_ttl(draft, command)
        case m.Unquarantine():
            held_back = command.key in draft.pool.failures
            if held_back:
                draft.emit(m.ModelUnquarantined(key=command.key, model=command.name))
            draft.emit(m.TicketDone(ticket=command.ticket, already=not held_back))
        case m.ClearSafeMode():
            if draft.pool.safe_mode_since_ms is not None:
                draft.emit(m.SafeModeLeft(reason=f"cleared by {command.client}"))
            draft.emit(m.TicketDone(ticket=command.ticket))
        case _:
            assert_never(command)


# --- use --------------------------------------------------------------------------


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
        priority=command.priority if isinstance(command, m.Acquire) else 0,
        pin=isinstance(command, m.Load) and command.pin,
        over_budget=isinstance(command, m.Load) and command.over_budget,
        reason="load" if isinstance(command, m.Load) else "acquire",
    )
    admit(draft, waiter)


def _release(draft: Draft, command: m.Release) -> None:
    for name in command.leases:
        lease = draft.pool.leases.get(name)
        if lease is not None:
            model = draft.pool.slots[lease.key].tenant.model.name
            draft.emit(m.LeaseEnded(lease=name, model=model, how="released"))


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
    key = left.option.model.key
    slot = draft.pool.slots.get(key)
    if left.reason != "load" or not isinstance(slot, Loading) or slot.inherited:
        return
    if draft.pool.read_only is not None:
        return
    wanted = any(w.option.model.key == key for w in draft.pool.waiters)
    if slot.reason in ("load", "retry") and not wanted:
        begin_unload(draft, slot, "cancelled")


# --- verbs ------------------------------------------------------------------------


def _not_loaded(draft: Draft, command: m.Unload | m.Evict | m.SetTtl) -> None:
    draft.refuse(
        command.ticket,
        Code.NOT_FOUND,
        f"{command.name} is not loaded; `mlxctl status` shows what is",
    )


def _in_use(draft: Draft, command: m.Unload | m.Evict, slot: Busy) -> None:
    draft.refuse(
        command.ticket,
        Code.CONFLICT,
        f"{command.name} is in use ({counted(len(slot.leases), 'lease')}, "
        f"{counted(slot.running, 'request')} running); wait until it is idle, then unload it",
    )


def _unload(draft: Draft, command: m.Unload) -> None:
    slot = draft.pool.slots.get(command.key)
    match slot:
        case None:
            _not_loaded(draft, command)
        case Busy():
            _in_use(draft, command, slot)
        case Idle():
            begin_unload(draft, slot, "request", unpin=True)
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case Loading() if slot.inherited:
            message = f"{command.name} is being taken over from the last daemon; ask again"
            draft.refuse(command.ticket, Code.CONFLICT, message)
        case Loading():
            begin_unload(draft, slot, "cancelled", unpin=True)
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
            name = slot.tenant.model.name
            load_ended_badly(
                draft, command.key, Code.CANCELLED, f"the load of {name} was cancelled"
            )
        case Draining() | Stopping():
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case _:
            assert_never(slot)


def _evict(draft: Draft, command: m.Evict) -> None:
    slot = draft.pool.slots.get(command.key)
    match slot:
        case None:
            _not_loaded(draft, command)
        case Busy():
            _in_use(draft, command, slot)
        case Loading():
            message = f"{command.name} is being loaded; unload it to cancel that"
            draft.refuse(command.ticket, Code.CONFLICT, message)
        case Idle() if command.key in draft.pool.pins:
            message = f"{command.name} is pinned; `mlxctl unpin {command.name}` first"
            draft.refuse(command.ticket, Code.CONFLICT, message)
        case Idle():
            begin_eviction(
                draft,
                slot,
                "request",
                rule=f"asked for by {command.client}",
                candidates=candidates_of(draft.pool, draft.now_ms, patient=True),
            )
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case Draining() | Stopping():
            draft.emit(m.UnloadAwaited(ticket=command.ticket, worker=slot.tenant.worker))
        case _:
            assert_never(slot)


def _pin(draft: Draft, command: m.Pin | m.Unpin) -> None:
    pinned = command.key in draft.pool.pins
    if isinstance(command, m.Pin) and not pinned:
        draft.emit(m.ModelPinned(key=command.key, model=command.name))
    elif isinstance(command, m.Unpin) and pinned:
        draft.emit(m.ModelUnpinned(key=command.key, model=command.name))
    draft.emit(m.TicketDone(ticket=command.ticket))


def _set_ttl(draft: Draft, command: m.SetTtl) -> None:
    slot = draft.pool.slots.get(command.key)
    if slot is None or isinstance(slot, Draining | Stopping):
        _not_loaded(draft, command)
        return
    if not has_asked_ttl(slot, command.ttl_ms):
        draft.emit(m.ModelTtlChanged(key=command.key, model=command.name, ttl_ms=command.ttl_ms))
    draft.emit(m.TicketDone(ticket=command.ticket))
