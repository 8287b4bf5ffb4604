"""``mlxctl top``: the pool, live."""

import sys

import click

from ctl.app import INTERRUPTED_EXIT, App
from ctl.options import json_option
from daemon.wire import control as c

_EPILOG = """\b
Examples:
  mlxctl top
  mlxctl top --json | jq .committed_bytes     a line at each change

Keys: up and down choose a model, u unloads it, p pins it or takes the pin away, w tells why it
is there, q quits.
"""


@click.command(epilog=_EPILOG)
@json_option
@click.pass_obj
def top(app: App) -> None:
    """Watch the pool live, and act on what is in it."""
    from ctl.quick import ask  # noqa: PLC0415

    view = ask(app, c.GetStatus(id=1), c.StatusView)
    try:
        if app.as_json:
            _print_changes(app)
            return
        if not app.out_is_terminal or not sys.stdin.isatty():
            raise click.UsageError("top needs a terminal; in a pipe: mlxctl top --json")
        from ctl.live import run_top  # noqa: PLC0415

        run_top(app, view)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None  # how watching ends: no news


def _print_changes(app: App) -> None:
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.live import each_change  # noqa: PLC0415
    from ctl.shapes import status_shape  # noqa: PLC0415

    talk(app, lambda control: each_change(control, lambda v: app.show_json(status_shape(v))))
