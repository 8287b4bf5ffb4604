"""``mlxd``: run the daemon."""

from daemon.wire import lean  # noqa: F401 - before anything loads structlog

# isort: split
import json
import os
import sys
from pathlib import Path

import anyio
import click
import structlog

from daemon import app
from daemon.eventlog.errors import LogError
from daemon.historytool import history_group
from daemon.logtool import log_group
from daemon.version import VERSION
from daemon.wire.errors import MlxdError
from daemon.wire.locks import AlreadyRunning
from daemon.wire.logs import announce, set_up_program_logging
from daemon.wire.paths import Home, find_home
from daemon.wire.settings import load_settings
from launchd.activation import CONTROL_SOCKET, inherited_sockets


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mlxd")
@click.pass_context
def main(context: click.Context) -> None:
    """Keep a pool of MLX models in memory.

    Without a subcommand the daemon runs in the foreground until SIGTERM or Ctrl-C.
    MLXD_HOME puts its configuration, event log, sockets and logs under one folder.
    """
    if context.invoked_subcommand is None:
        sys.exit(_run())
    try:
        context.obj = find_home(os.environ, sys.platform)  # noqa: TID251
    except MlxdError as error:
        sys.exit(_fail(error))


main.add_command(log_group, "log")
main.add_command(history_group, "history")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(home: Home, as_json: bool) -> None:
    """Read the configuration and say whether it is right."""
    file = home.config_file
    try:
        load_settings(file)
    except MlxdError as error:
        sys.exit(_fail(error))
    exists = file.exists()
    if as_json:
        click.echo(json.dumps({"v": 1, "path": str(file), "exists": exists}))
    else:
        click.echo(f"{file} is fine" if exists else f"there is no {file}: all defaults")


def _run() -> int:
    environ = dict(os.environ)  # noqa: TID251
    try:
        inherited = inherited_sockets(CONTROL_SOCKET, environ)
        home = find_home(environ, sys.platform)
        set_up_program_logging(home.daemon_log, serviced=inherited is not None)
        settings = load_settings(home.config_file)
        launcher = app.make_launcher(home, settings, environ)
        anyio.run(app.run, home, settings, launcher, app.read_machine(), _ready, inherited)
    except AlreadyRunning as error:
        click.echo(f"mlxd: another mlxd already serves this home ({error})", err=True)
        return app.EXIT_ALREADY_RUNNING
    except MlxdError as error:
        return _fail(error)
    except LogError as error:
        click.echo(f"mlxd: {error}", err=True)
        return 74
    return 0


def _ready(socket: Path) -> None:
    """One line on stdout, for whoever started the daemon and waits for it."""
    line = {"event": "daemon.ready", "socket": str(socket), "pid": os.getpid()}
    announce(json.dumps(line).encode())
    structlog.get_logger("daemon").info(**line)


def _fail(error: MlxdError) -> int:
    click.echo(f"mlxd: {error.fault.message}", err=True)
    return error.handling.exit_code


if __name__ == "__main__":
    main()
