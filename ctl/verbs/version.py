"""``mlxctl version``: this program, and the daemon it would speak to."""

import platform

import click

from ctl.app import App
from ctl.blocks import Line
from ctl.options import json_option
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError

_EPILOG = """\b
Examples:
  mlxctl version
  mlxctl version --json | jq -r .daemon.version
"""


@click.command(epilog=_EPILOG)
@json_option
@click.pass_obj
def version(app: App) -> None:
    """Show the version of mlxctl and of the daemon, if one runs."""
    welcome = _ask(app)
    own = own_version()
    if app.as_json:
        app.show_json(version_shape(own, welcome))
    else:
        app.show(*version_lines(own, welcome))


def version_shape(own: str, welcome: c.Welcome | None) -> dict[str, object]:
    """The ``--json`` shape; ``daemon`` is null where none runs."""
    daemon = welcome and {
        "version": welcome.version,
        "pid": welcome.pid,
        "protocol": welcome.protocol,
    }
    return {"v": 1, "mlxctl": own, "python": platform.python_version(), "daemon": daemon}


def version_lines(own: str, welcome: c.Welcome | None) -> tuple[Line, ...]:
    """The same for people."""
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if welcome is None:
        daemon = Line("mlxd   not running", "dim")
    else:
        daemon = Line(f"mlxd   {welcome.version} (pid {welcome.pid}, protocol {welcome.protocol})")
    return Line(f"mlxctl {own} ({system})"), daemon


def own_version() -> str:
    """The installed distribution's version; "source" in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415
    from importlib.metadata import version as installed  # noqa: PLC0415

    try:
        return installed("mlxd")
    except PackageNotFoundError:
        return "source"


def _ask(app: App) -> c.Welcome | None:
    from ctl.quick import greet  # noqa: PLC0415

    try:
        return greet(app)
    except MlxdError as error:
        if error.code is Code.NO_DAEMON:
            return None
        raise
