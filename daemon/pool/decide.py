"""``decide``: what a command makes true. It never raises, reads no clock and does no I/O."""

from daemon.pool import messages as m
from daemon.pool.draft import Draft
from daemon.pool.due import expiry_ms, next_due_ms
from daemon.pool.failing import fail_stalled_loads
from daemon.pool.lifetime import machine_report, own_command
from daemon.pool.reports import report
from daemon.pool.schedule import settle
from daemon.pool.spare import keep_spare
from daemon.pool.state import Pool
from daemon.pool.verbs import client_command

__all__ = ["decide", "expiry_ms", "next_due_ms"]


def decide(pool: Pool, command: m.AnyCommand, now_ms: int) -> m.Decision:
    """What ``command`` makes true of ``pool``; an empty decision changes nothing."""
    draft = Draft(pool, now_ms)
    if isinstance(command, m.ClientCommand):
        client_command(draft, command)
    elif isinstance(command, m.Report):
        report(draft, command)
    elif isinstance(command, m.MachineReport):
        machine_report(draft, command)
    else:
        own_command(draft, command)
    fail_stalled_loads(draft)
    settle(draft)
    keep_spare(draft)
    return draft.decision()
