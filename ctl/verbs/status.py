"""``mlxctl status`` (and ``ps``): the pool now."""

import click
import msgspec

from ctl.app import App
from ctl.options import json_option
from daemon.wire import control as c

_EPILOG = """\b
Examples:
  mlxctl status
  mlxctl ps --json | jq '.models[].name'
  mlxctl status --at 2h                   the pool as it was two hours ago
  mlxctl status --at 17                   … after record 17 of the event log

SIZE is what a model takes of the budget: its weights, working memory and the cache that
is reserved for its requests, or what was measured if that is more.
"""


@click.command(epilog=_EPILOG)
@click.option("--at", "place", metavar="SEQ|TIME", help="As it was after a record, or at a moment.")
@json_option
@click.pass_obj
def status(app: App, place: str | None) -> None:
    """Show what is loaded, how much memory it takes, and who waits."""
    if place is not None:
        _show_past(app, place)
        return
    from ctl.quick import ask  # noqa: PLC0415

    view = ask(app, c.GetStatus(id=1), c.StatusView)
    if app.as_json:
        from ctl.shapes import status_shape  # noqa: PLC0415

        app.show_json(status_shape(view))
        return
    from ctl.render import status_page  # noqa: PLC0415

    app.show(*status_page(view))


def _show_past(app: App, place: str) -> None:
    """The pool as the log tells it; the daemon is not asked."""
    from ctl.mlxd import result_of  # noqa: PLC0415
    from ctl.render import past_page  # noqa: PLC0415

    out = result_of(app, "history", "at", place, "--json")
    if app.as_json:
        app.write(out)
        return
    shape = msgspec.json.decode(out)
    app.show(*past_page(msgspec.convert({**shape, "id": 0}, c.StatusView)))
