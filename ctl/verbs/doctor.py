"""``mlxctl doctor``: is everything as it should be, and if not, what to do."""

import click

from ctl.app import App
from ctl.options import json_option

_EPILOG = """\b
Examples:
  mlxctl doctor
  mlxctl doctor --json | jq '.checks[] | select(.verdict != "ok")'
  mlxctl doctor --selftest     what only a Mac can show, tried on this machine

Nothing is changed. A worker process is really started, and every line of the event log is
read. Exit code 1: something is broken. --selftest starts a daemon of its own in a folder that
is removed afterwards.
"""


@click.command(epilog=_EPILOG)
@click.option("--selftest", is_flag=True, help="Try what depends on the system itself.")
@json_option
@click.pass_obj
def doctor(app: App, selftest: bool) -> None:
    """Check the installation, and say the fix for what is wrong."""
    from ctl.health import check_page, checks_shape, healthy, summary_page  # noqa: PLC0415

    if selftest:
        from ctl.selftest import run_selftest as look  # noqa: PLC0415
    else:
        from ctl.checks import run_checks as look  # noqa: PLC0415
    checks = []
    for check in look(app):
        checks.append(check)
        if not app.as_json:
            app.show(*check_page(check))
    if app.as_json:
        app.show_json(checks_shape(checks))
    else:
        app.show(*summary_page(checks))
    if not healthy(checks):
        raise click.exceptions.Exit(1)
