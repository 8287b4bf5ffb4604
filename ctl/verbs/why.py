"""``mlxctl why``: why a model is in memory, or why it is not."""

from typing import TYPE_CHECKING, Any

import click

from ctl.app import App
from ctl.options import json_option

if TYPE_CHECKING:
    from daemon.wire.client import Control

_EPILOG = """\b
Examples:
  mlxctl why mlxd/glimpse
  mlxctl why ./my-model                   by its folder
  mlxctl why fast                         an alias: each model that it names
  mlxctl why mlxd/glimpse --json | jq -r '.models[].sentences[]'

Every sentence names its records of the event log; 'mlxctl events --after SEQ' shows them.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def why(app: App, model: str) -> None:
    """Tell why MODEL is in memory, or why it is not."""
    from ctl.asking import explain  # noqa: PLC0415
    from ctl.connect import talk  # noqa: PLC0415

    async def ask(control: "Control") -> Any:
        return await explain(control, model)

    answer = talk(app, ask)
    if app.as_json:
        app.show_json(answer.shape())
    else:
        app.show(*answer.page())
