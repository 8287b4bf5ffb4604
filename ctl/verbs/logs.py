"""``mlxctl logs``: the text logs of the programs."""

import time
from pathlib import Path
from typing import Final

import click
import msgspec

from ctl.app import INTERRUPTED_EXIT, App
from ctl.options import json_option
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError

LOOK_EVERY_S: Final = 0.5
"""How often a file is looked at for more: no way to wait for one is the same everywhere."""

_EPILOG = """\b
Examples:
  mlxctl logs                             the daemon
  mlxctl logs -f                          and what comes
  mlxctl logs bridge -n 200
  mlxctl logs worker my-model             the last one of a model
  mlxctl logs worker w7                   by its own name

This is what programs say about their work. What happened to models, and why, is in
'mlxctl events' and 'mlxctl why'. No log holds prompts or answers.
"""


@click.command(epilog=_EPILOG)
@click.argument(
    "program",
    type=click.Choice(["daemon", "bridge", "worker"]),
    default="daemon",
    metavar="[daemon|bridge|worker]",
)
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option(
    "-n",
    "--last",
    default=50,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many lines.",
)
@json_option
@click.pass_obj
def logs(app: App, program: str, name: str | None, follow: bool, last: int) -> None:
    """Show what the daemon, the bridge or a model's worker has logged."""
    from ctl.tail import Tail  # noqa: PLC0415

    if (name is not None) != (program == "worker"):
        needed = (
            "name the worker or its model" if program == "worker" else "only workers have names"
        )
        raise click.UsageError(needed)
    tail = Tail(_file(app, program, name or ""))
    _print(app, tail.last(last))
    try:
        while follow:
            time.sleep(LOOK_EVERY_S)
            _print(app, tail.more())
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None  # how following ends: no news


def _file(app: App, program: str, name: str) -> Path:
    from daemon.wire.logs import boot_log  # noqa: PLC0415

    if program == "worker":
        return _worker_file(app, name)
    log = app.home.daemon_log if program == "daemon" else app.home.bridge_log
    found = next((file for file in (log, boot_log(log)) if file.exists()), None)
    if found is None:
        title = "mlxd" if program == "daemon" else "mlx-bridge"
        raise MlxdError(
            Code.NOT_FOUND,
            f"there is no {log}: {title} writes it as a service, and else to its own terminal",
            hint="mlxctl service install runs it as a service",
        )
    return found


def _worker_file(app: App, name: str) -> Path:
    """By the worker's name, or by the model that it has now or had last."""
    folder = app.home.logs_dir
    workers = {log.stem.removeprefix("worker-"): log for log in folder.glob("worker-*.log")}
    worker = name if name in workers else _worker_of(app, name) or _last_worker_of(app, name)
    if worker is None:
        newest = sorted(workers, key=lambda one: workers[one].stat().st_mtime, reverse=True)
        there = (
            f"there are {', '.join(newest[:8])}, the newest first" if newest else "there are none"
        )
        raise MlxdError(
            Code.NOT_FOUND,
            f"no log in {folder} is of a worker or model '{name}': {there}",
            field="name",
        )
    if worker not in workers:
        raise MlxdError(
            Code.NOT_FOUND,
            f"the log of {worker}, the last worker of '{name}', is not in {folder}",
            hint=f"what the event log says of it: mlxctl why {name}",
            field="name",
        )
    return workers[worker]


def _worker_of(app: App, model: str) -> str | None:
    from ctl.quick import ask  # noqa: PLC0415

    try:
        residents = ask(app, c.GetStatus(id=1), c.StatusView).models
    except MlxdError:
        return None  # without a daemon the event log knows
    return next((one.worker for one in residents if one.name == model), None)


def _last_worker_of(app: App, model: str) -> str | None:
    """The worker of the model's last load, by the event log's files; None if there was none."""
    segments = sorted(app.home.events_dir.glob("*.jsonl"), reverse=True)
    workers = (worker for segment in segments for worker in _workers_in(segment, model))
    return next(workers, None)


def _workers_in(segment: Path, model: str) -> list[str]:
    """Those of the model's loads in one file of the event log, the last one first."""
    from daemon.wire.records import ModelNames, read_record  # noqa: PLC0415

    names, workers = ModelNames({}), []
    with segment.open("rb") as lines:
        for line in lines:
            if b'"load.started"' not in line:
                continue
            try:
                record = read_record(line.decode())
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # damage is for 'mlxctl log verify'; here the rest helps all the same
            loads = (event for event in record.events if event.get("type") == "load.started")
            workers += [str(load.get("worker")) for load in loads if names.name(load) == model]
    return workers[::-1]


def _print(app: App, lines: list[str]) -> None:
    from ctl.tail import as_object, log_line  # noqa: PLC0415

    if not app.as_json:
        if lines:
            app.show(*map(log_line, lines))
        return
    for line in lines:
        app.show_json(as_object(line) or {"v": 1, "line": line})
