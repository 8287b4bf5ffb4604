"""``mlxctl simulate``: one's own demand under other rules."""

import click
import msgspec

from ctl.app import App
from ctl.options import json_option

_EPILOG = """\b
Examples:
  mlxctl simulate --budget 24G            would more memory have helped?
  mlxctl simulate --policy ttl=10m --since 7d
  mlxctl simulate --policy largest-first,ttl=1h --json

The requests of the event log are put through the pool's own rules on a virtual clock, with
the load times that were measured. No daemon is needed, and nothing is changed.
"""


@click.command(epilog=_EPILOG)
@click.option("--budget", metavar="SIZE", help="Memory for all models, e.g. 24G.")
@click.option(
    "--policy", default="lru", metavar="RULE", help="lru, largest-first, ttl=10m, or two of them."
)
@click.option("--since", metavar="TIME", help="Count only from then on: 7d, 2026-09-01 …")
@json_option
@click.pass_obj
def simulate(app: App, budget: str | None, policy: str, since: str | None) -> None:
    """Show loads, evictions and waits as they would have been."""
    from ctl.mlxd import result_of  # noqa: PLC0415
    from ctl.simulation import Comparison, simulation_page  # noqa: PLC0415

    options = {"--budget": budget, "--policy": policy, "--since": since}
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    out = result_of(app, "history", "simulate", *given, "--json")
    if app.as_json:
        app.write(out)
    else:
        app.show(*simulation_page(msgspec.json.decode(out, type=Comparison)))
