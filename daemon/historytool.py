"""``mlxd history at|simulate``: questions about the past, answered from the log's files.

It reads beside a running daemon and changes nothing. Exit codes are those of ``mlxctl``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from daemon.clock import Clock
from daemon.eventlog.audit import scan_patiently
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.errors import Damage, LogError
from daemon.eventlog.log import EventLog
from daemon.eventlog.opening import Covers
from daemon.eventlog.segment import segment_name, segments_in
from daemon.eventlog.snapshot import Snapshot
from daemon.film import film
from daemon.history import fold, parse_place, view_of
from daemon.pool.state import STATE_VERSION
from daemon.simulation import compare, parse_policy
from daemon.wire.errors import HANDLING, Code, Fault, MlxdError
from daemon.wire.moments import parse_moment_ms
from daemon.wire.paths import Home
from daemon.wire.shapes import versioned
from daemon.wire.units import parse_bytes


@click.group("history", help="Ask the event log about the past; changes nothing.")
def history_group() -> None:
    """The group; its commands are below."""


@history_group.command("at", help="The pool as it was after record SEQ, or at a moment, as JSON.")
@click.argument("place", metavar="SEQ|TIME")
@click.option("--json", "_as_json", is_flag=True, help="Print one JSON object: always so.")
@click.pass_obj
def at_command(home: Home, place: str, _as_json: bool) -> None:
    """What ``mlxctl status --json`` would have said then."""
    with failures():
        where = parse_place(place, Clock().now_ms())
        with open_log(home.events_dir, where.holds) as (log, snapshot, damage):
            after = snapshot.position.seq if snapshot is not None else 0
            view = view_of(fold(log.replay(after), where, snapshot), where, str(home.root))
    _print(versioned(view), damage)


@history_group.command("film", help="The pool after each of many records, as JSON Lines.")
@click.option("--after", type=click.IntRange(0), help="Records after this one.")
@click.option("--before", type=click.IntRange(0), help="Records before this one.")
@click.option("--limit", type=click.IntRange(1), default=500, show_default=True)
@click.pass_obj
def film_command(home: Home, after: int | None, before: int | None, limit: int) -> None:
    """Without ``--after`` the last records; nothing is there if none lie between."""
    with failures():
        with open_log(home.events_dir) as (log, _, _):
            last = log.position.seq if before is None else min(log.position.seq, before - 1)
        first = max(0, last - limit) if after is None else after
        with open_log(home.events_dir, lambda at: at.seq <= first) as (log, snapshot, _):
            records = log.replay(snapshot.position.seq if snapshot is not None else 0)
            for still in film(records, first, min(last, first + limit), snapshot):
                click.echo(msgspec.json.encode(still))


@history_group.command("simulate", help="The log's demand under other rules, as JSON.")
@click.option("--budget", help="Memory for all models, such as 24G.")
@click.option("--policy", default="lru", help='"lru", "largest-first", "ttl=10m", or two of them.')
@click.option("--since", help="Count only from then on, such as 7d.")
@click.option("--json", "_as_json", is_flag=True, help="Print one JSON object: always so.")
@click.pass_obj
def simulate_command(
    home: Home, budget: str | None, policy: str, since: str | None, _as_json: bool
) -> None:
    """Loads, evictions and waits: recorded, replayed, and under these rules."""
    with failures(), open_log(home.events_dir) as (log, _, damage):
        budget_bytes = None if budget is None else parse_bytes(budget, field="budget")
        rules = parse_policy(policy, budget_bytes)
        since_ms = 0 if since is None else parse_moment_ms(since, Clock().now_ms())
        comparison = compare(log.replay(), rules, since_ms)
    _print({"v": 1, **msgspec.to_builtins(comparison)}, damage)


class Opened(NamedTuple):
    """A log to read, the snapshot to begin with, and what is wrong behind the log's end."""

    log: EventLog
    snapshot: Snapshot | None
    damage: Damage | None


@contextmanager
def open_log(folder: Path, covers: Covers = lambda _: False) -> Iterator[Opened]:
    """The log in ``folder`` for reading, beside a daemon that writes it or without one.

    With it comes the newest snapshot that ``covers`` takes; as a rule none is wanted.
    Damage that the daemon's next start would set aside is no failure: the log ends there.
    What is ``not_found`` in the block may lie behind it, and the message says so.

    Raises:
        MlxdError: ``not_found`` if there is none.
        LogError: It is damaged in another way.
    """
    if not folder.is_dir():
        raise MlxdError(Code.NOT_FOUND, f"there is no event log in {folder}")
    log, report = EventLog.open(
        folder, OsDisk(), state_version=STATE_VERSION, writable=False, covers=covers
    )
    damage = report.torn and _lasting(folder, report.torn)
    try:
        yield Opened(log, report.snapshot, damage)
    except MlxdError as error:
        if damage is None or error.code is not Code.NOT_FOUND:
            raise
        raise MlxdError(error.code, f"{error.fault.message}; {_left_out(damage)}") from error
    finally:
        log.close()


def _lasting(folder: Path, torn: Damage) -> Damage | None:
    """``torn``, unless a daemon was just writing that line."""
    disk = OsDisk()
    first = max(seq for seq in segments_in(disk, folder) if seq <= torn.seq)
    return scan_patiently(disk, folder / segment_name(first), first).damage


def _left_out(damage: Damage) -> str:
    return (
        f"from record {damage.seq} on the event log cannot be read ({damage.why}), and is left "
        "out; all of the damage: mlxctl log verify"
    )


def _print(answer: dict[str, Any], damage: Damage | None) -> None:
    """One JSON object, and on stderr what it does not hold."""
    if damage is not None:
        click.echo(f"mlxd: {_left_out(damage)}", err=True)
    click.echo(msgspec.json.encode({**answer, "damage": damage}))


@contextmanager
def failures() -> Iterator[None]:
    """What went wrong as one sentence on stderr and an exit code."""
    try:
        yield
    except MlxdError as error:
        raise _failure(error.fault) from error
    except (LogError, OSError) as error:
        raise _failure(Fault(code=Code.INTERNAL, message=str(error))) from error


def _failure(fault: Fault) -> click.exceptions.Exit:
    click.echo(f"mlxd: {fault.message}", err=True)
    return click.exceptions.Exit(HANDLING[fault.code].exit_code)
