"""``mlxd log verify|repair|export``: work on the event log's files, without the daemon.

The program's entry point adds :data:`log_group` to its own and passes a
:class:`~daemon.wire.paths.Home` as the context's object; ``--events`` names a folder.
Exit codes are those of ``mlxctl`` (:data:`daemon.wire.errors.HANDLING`).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon.clock import Clock
from daemon.eventlog.archive import ExportReport, export
from daemon.eventlog.audit import RepairReport, VerifyReport, repair, verify
from daemon.eventlog.disk import OsDisk
from daemon.eventlog.errors import LogBusy, LogError
from daemon.eventlog.segment import segments_in
from daemon.eventlog.snapshot import snapshots_in
from daemon.wire.errors import HANDLING, Code
from daemon.wire.paths import Home
from daemon.wire.units import counted, format_bytes

_DAMAGED_EXIT = 1


@click.group("log", help="Check, repair or copy the event log.")
def log_group() -> None:
    """The group; its commands are below."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    events = click.option(
        "--events",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder of the log, if not this installation's.",
    )
    return as_json(events(command))


@log_group.command("verify", help="Check every byte and read every record; changes nothing.")
@_options
@click.pass_context
def verify_command(ctx: click.Context, events: Path | None, as_json: bool) -> None:
    """Exit code 0 if the log is sound, 1 if it is not."""
    with _failures():
        report = verify(OsDisk(), _existing(ctx, events))
    _print(report, as_json, _verify_text(report))
    ctx.exit(0 if report.sound else _DAMAGED_EXIT)


@log_group.command(
    "repair", help="Keep the log up to the first damage, and set the rest aside; deletes nothing."
)
@_options
@click.pass_context
def repair_command(ctx: click.Context, events: Path | None, as_json: bool) -> None:
    """Exit code 0 if the log is in order now."""
    with _failures():
        report = repair(OsDisk(), _existing(ctx, events), Clock().now_ms())
    _print(report, as_json, _repair_text(report))


@log_group.command("export", help="Copy the log to TARGET: NAME.jsonl or NAME.tar.gz.")
@click.argument("target", type=click.Path(path_type=Path))
@_options
@click.pass_context
def export_command(ctx: click.Context, target: Path, events: Path | None, as_json: bool) -> None:
    """Exit code 0 if all of the log was good, 1 if damage was found on the way."""
    with _failures():
        report = export(OsDisk(), _existing(ctx, events), target)
    _print(report, as_json, _export_text(report))
    ctx.exit(_DAMAGED_EXIT if report.damages else 0)


def _existing(ctx: click.Context, events: Path | None) -> Path:
    home = ctx.find_object(Home)
    if events is None and home is None:
        raise click.UsageError("name the folder of the log with --events")
    folder = events or (home.events_dir if home else Path())
    # The empty folder of a service that has just been installed is a log without records.
    if not folder.is_dir() or (events is not None and not _holds_log(events)):
        raise _failure(
            f"there is no event log in {folder}; name its folder with --events", Code.NOT_FOUND
        )
    return folder


def _holds_log(folder: Path) -> bool:
    return bool(segments_in(OsDisk(), folder) or snapshots_in(OsDisk(), folder))


@contextmanager
def _failures() -> Iterator[None]:
    """What went wrong as one sentence on stderr and an exit code."""
    try:
        yield
    except LogBusy as error:
        raise _failure(str(error), Code.CONFLICT) from error
    except (FileExistsError, ValueError) as error:
        raise _failure(str(error), Code.INVALID_REQUEST) from error
    except (LogError, OSError) as error:
        raise _failure(str(error), Code.INTERNAL) from error


def _failure(message: str, code: Code) -> click.exceptions.Exit:
    click.echo(f"mlxd: {message}", err=True)
    return click.exceptions.Exit(HANDLING[code].exit_code)


def _print(report: Any, as_json: bool, text: str) -> None:
    if as_json:
        shape = {"v": 1, **msgspec.to_builtins(report)}
        text = json.dumps(shape, ensure_ascii=False, separators=(",", ":"))
    # A path may hold bytes that are no text: "?" stands for each.
    click.echo(text.encode(errors="replace").decode())


def _verify_text(report: VerifyReport) -> str:
    found = f"{counted(report.records, 'record')} in {counted(report.segments, 'segment')}"
    lines = [f"{found} ({format_bytes(report.bytes)}): good"]
    lines += [f"damage: {damage}" for damage in report.damages]
    lines += [f"unreadable: {unreadable}" for unreadable in report.unreadable]
    lines += [
        f"snapshot after record {seq} cannot be used: {why}"
        for seq, why in report.snapshots.items()
        if why
    ]
    if report.torn_tail:
        lines.append("the next start of mlxd sets the torn tail aside by itself")
    elif report.damages:
        lines.append("run `mlxd log repair` to keep what is good and set the rest aside")
    return "\n".join(lines)


def _repair_text(report: RepairReport) -> str:
    if report.damage is None:
        return "nothing to repair"
    size = f"({counted(report.lost_bytes, 'byte')})"
    first, last = report.lost_from_seq, report.lost_to_seq
    if last > first:
        lost = f"records {first} to {last} or later {size} are no longer part of the log; they are"
    else:
        lost = f"everything from record {first} on {size} is no longer part of the log; it is"
    return "\n".join(
        [
            f"damage: {report.damage}",
            f"{lost} kept in:",
            *[f"  {name}" for name in report.set_aside],
        ]
    )


def _export_text(report: ExportReport) -> str:
    return "\n".join(
        [
            f"{report.records} records from {report.files} files are in {report.target}",
            *[f"damage: {damage}" for damage in report.damages],
        ]
    )
