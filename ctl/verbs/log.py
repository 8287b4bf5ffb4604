"""``mlxctl log verify|repair|export``: the event log's files, by way of ``mlxd log``."""

from pathlib import Path

import click

from ctl.app import App
from ctl.options import json_option

_EPILOG = """\b
Examples:
  mlxctl log verify
  mlxctl log verify --json
  mlxctl log export ~/mlxd-log.tar.gz
  mlxctl log repair                       the daemon must not run

These read the files themselves, with or without a daemon. Exit code 1: there is damage.
"""
_EVENTS = click.option(
    "--events", metavar="FOLDER", help="The folder of the log, if not this installation's."
)


@click.group("log", epilog=_EPILOG)
def log() -> None:
    """Check, repair or copy the files of the event log."""


@log.command("verify")
@_EVENTS
@json_option
@click.pass_obj
def verify(app: App, events: str | None) -> None:
    """Check every byte and read every record; changes nothing."""
    _run(app, "verify", events)


@log.command("repair")
@_EVENTS
@json_option
@click.pass_obj
def repair(app: App, events: str | None) -> None:
    """Keep the log up to the first damage and set the rest aside; deletes nothing."""
    _run(app, "repair", events)


@log.command("export")
@click.argument("target")
@_EVENTS
@json_option
@click.pass_obj
def export(app: App, target: str, events: str | None) -> None:
    """Copy the log to TARGET: NAME.jsonl or NAME.tar.gz."""
    _run(app, "export", events, str(Path(target).expanduser()))


def _run(app: App, verb: str, events: str | None, *more: str) -> None:
    from ctl.mlxd import pass_through  # noqa: PLC0415

    folder = ["--events", str(Path(events).expanduser())] if events else []
    code = pass_through(app, "log", verb, *folder, *more)
    if code:
        raise click.exceptions.Exit(code)
