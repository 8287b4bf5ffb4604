"""The daemon's own life, and what the machine does: start, stop, settings, memory, time."""

from typing import assert_never

from msgspec.structs import replace

from daemon.pool import messages as m
from daemon.pool.background import add_wishes
from daemon.pool.draft import Draft
from daemon.pool.spare import spare_ended
from daemon.wire.errors import Code


def own_command(draft: Draft, command: m.OwnCommand) -> None:
    """Decide what follows from the daemon's own life."""
    match command:
        case m.Tick():
            return  # every decision looks at all that is due
        case m.Start():
            _start(draft, command)
        case m.Stop():
            _stop(draft, command.reason, detach=False)
        case m.Detach():
            _stop(draft, command.reason, detach=True)
        case m.Stopped():
            if draft.pool.run is not None and draft.pool.read_only is None:
                draft.emit(m.DaemonStopped(generation=draft.pool.generation, reason=command.reason))
        case m.Configure():
            _configure(draft, command)
        case m.Restore():
            add_wishes(draft, command.wishes)
        case _:
            assert_never(command)


def machine_report(draft: Draft, command: m.MachineReport) -> None:
    """Decide what follows from what the machine does."""
    match command:
        case m.ReportPressure():
            if command.level != draft.pool.pressure_reported.level:
                draft.emit(m.PressureReported(level=command.level))
        case m.ReportClockJump():
            if command.by_ms > 0:
                draft.emit(m.ClockJumped(by_ms=command.by_ms))
        case m.ReportSpareEnded():
            spare_ended(draft, command)
        case m.ReportLog():
            if command.blocked is not None:
                draft.emit(m.LogBlocked(reason=command.blocked))
            elif draft.pool.read_only is not None:
                draft.emit(m.LogWritable())
        case _:
            assert_never(command)


def _start(draft: Draft, command: m.Start) -> None:
    if command.tail_lost_bytes:
        draft.emit(m.LogTailLost(lost_bytes=command.tail_lost_bytes, kept_as=command.tail_kept_as))
    limits = command.limits or replace(draft.pool.limits, budget_bytes=command.budget_bytes)
    draft.emit(
        m.DaemonStarted(
            generation=draft.pool.generation + 1,
            pid=command.pid,
            boot_id=command.boot_id,
            version=command.version,
            budget_bytes=limits.budget_bytes,
            memory_total_bytes=command.memory_total_bytes,
            limits=limits,
        )
    )
    run = draft.pool.run
    assert run is not None
    if run.unclean_before >= limits.unclean_starts_max:
        _enter_safe_mode(draft, run.unclean_before, run.suspects)


def _enter_safe_mode(
    draft: Draft, unclean_starts: int, suspects: tuple[tuple[str, str], ...]
) -> None:
    """What was loading whenever the daemon went down is not tried again."""
    accused = [
        (key, name)
        for key, name in suspects
        if key not in draft.pool.failures or not draft.pool.failures[key].quarantined
    ]
    for key, name in accused:
        failures = draft.pool.failures.get(key)
        draft.emit(
            m.ModelQuarantined(
                key=key,
                model=name,
                failures=0 if failures is None else len(failures.crashed_at_ms),
                message=f"it was being loaded when the daemon ended early, "
                f"{unclean_starts} times in a row",
            )
        )
    names = tuple(name for _, name in accused)
    draft.emit(m.SafeModeEntered(unclean_starts=unclean_starts, quarantined=names))


def _stop(draft: Draft, reason: str, *, detach: bool) -> None:
    pool = draft.pool
    if pool.stopping is None or (detach and not pool.detaching):
        draft.emit(m.StopBegan(reason=reason, detach=detach))
    for waiter in draft.pool.waiters:
        draft.refuse(
            waiter.ticket, Code.SHUTTING_DOWN, "mlxd is shutting down; ask again once it is back"
        )


def _configure(draft: Draft, command: m.Configure) -> None:
    if draft.pool.read_only is not None:
        if command.ticket is not None:
            draft.refuse(
                command.ticket,
                Code.READ_ONLY,
                f"{draft.pool.read_only}. Until the event log can be written, the configuration "
                "stays as it was",
            )
        return
    if command.keys:
        draft.emit(m.ConfigChanged(keys=command.keys, limits=command.limits))
    if command.ticket is not None:
        draft.emit(m.TicketDone(ticket=command.ticket))
