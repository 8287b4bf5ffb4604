"""``mlxctl status`` (and ``ps``): the pool now."""

import click

from ctl.app import App
from ctl.options import json_option
from daemon.wire import control as c

_EPILOG = """\b
Examples:
  mlxctl status
  mlxctl ps --json | jq '.models[].name'

SIZE is what a model takes of the budget: its weights, working memory and the cache that
is reserved for its requests, or what was measured if that is more.
"""


@click.command(epilog=_EPILOG)
@json_option
@click.pass_obj
def status(app: App) -> None:
    """Show what is loaded, how much memory it takes, and who waits."""
    from ctl.quick import ask  # noqa: PLC0415

    view = ask(app, c.GetStatus(id=1), c.StatusView)
    if app.as_json:
        from ctl.shapes import status_shape  # noqa: PLC0415

        app.show_json(status_shape(view))
        return
    from ctl.render import status_page  # noqa: PLC0415

    app.show(*status_page(view))
