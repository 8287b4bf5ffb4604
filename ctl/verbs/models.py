"""``mlxctl models``: what could be loaded."""

import click

from ctl.app import App
from ctl.options import json_option
from daemon.wire import control as c

_EPILOG = """\b
Examples:
  mlxctl models
  mlxctl models --json | jq -r '.models[] | select(.kind == "vision").name'

SIZE is the size of the weights on disk. FITS says whether there is room in memory: now,
after evicting what nobody uses, after waiting for what is in use, or never, and why.
"""


@click.command(epilog=_EPILOG)
@json_option
@click.pass_obj
def models(app: App) -> None:
    """List the models on disk: what they are, what they can do, whether they fit."""
    from ctl.quick import ask  # noqa: PLC0415

    view = ask(app, c.ListModels(id=1), c.ModelsView)
    if app.as_json:
        from ctl.shapes import models_shape  # noqa: PLC0415

        app.show_json(models_shape(view))
        return
    from ctl.shelf import models_page  # noqa: PLC0415

    app.show(*models_page(view))
