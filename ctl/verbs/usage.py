"""``mlxctl usage``: requests, tokens and busy time, from the event log."""

from typing import TYPE_CHECKING

import click

from ctl.app import App
from ctl.options import json_option

if TYPE_CHECKING:
    from ctl.usage import By
    from daemon.wire.client import Control

_EPILOG = """\b
Examples:
  mlxctl usage                            a row a model and day
  mlxctl usage --by model --since 7d
  mlxctl usage --by day --since 2026-09-01 --json

READ and WRITTEN are tokens, as the engines counted them. BUSY is the time with at least one
request running. The last minute may not be recorded yet.
"""


@click.command(epilog=_EPILOG)
@click.option("--by", type=click.Choice(("day", "model")), help="Add up by day or by model.")
@click.option("--since", metavar="TIME", help="Only since then: 7d, 14:30, 2026-09-01 …")
@json_option
@click.pass_obj
def usage(app: App, by: "By | None", since: str | None) -> None:
    """Add up what was used: requests, tokens, busy time."""
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.follow import read_log  # noqa: PLC0415
    from ctl.usage import UsageSum  # noqa: PLC0415
    from daemon.wire.moments import parse_moment_ms  # noqa: PLC0415

    added = UsageSum(by)

    async def read(control: "Control") -> int | None:
        now_ms = (await control.status()).now_ms
        since_ms = None if since is None else parse_moment_ms(since, now_ms)
        async for record in read_log(control):
            if since_ms is None or record.at_ms >= since_ms:
                added.take(record)
        return since_ms

    since_ms = talk(app, read)
    if app.as_json:
        app.show_json(added.shape(since_ms))
    else:
        app.show(*added.page())
