"""``mlxctl events``: what happened, to which model, and why."""

import click

from ctl.app import INTERRUPTED_EXIT, App
from ctl.options import json_option

_EPILOG = """\b
Examples:
  mlxctl events                           the last 20 records
  mlxctl events -f                        and then what happens, live
  mlxctl events --since 2h                or "14:30", "2026-09-21 14:30"
  mlxctl events --after 0 --type 'load.*'
  mlxctl events --model mlxd/glimpse -n 5
  mlxctl events --after 0 --json > copy.jsonl

--json prints the records exactly as the log holds them, one a line.
"""


@click.command(epilog=_EPILOG)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next, until Ctrl-C.")
@click.option("-n", "--last", type=click.IntRange(min=0), help="How many records.  [default: 20]")
@click.option("--after", type=click.IntRange(min=0), metavar="SEQ", help="All after this record.")
@click.option("--since", metavar="TIME", help="All since then: 2h, 14:30, 2026-09-21 …")
@click.option("--type", "type_glob", metavar="GLOB", help="Only such events, e.g. 'load.*'.")
@click.option("--model", "model_glob", metavar="NAME", help="Only this model's (may be a glob).")
@json_option
@click.pass_obj
def events(
    app: App,
    follow: bool,
    last: int | None,
    after: int | None,
    since: str | None,
    type_glob: str | None,
    model_glob: str | None,
) -> None:
    """Show the event log: what happened, and what caused it."""
    if last is not None and after is not None:
        raise click.UsageError("--last and --after exclude each other")
    if since is not None and after is not None:
        raise click.UsageError("--since and --after exclude each other")
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.filter import Filter  # noqa: PLC0415
    from ctl.follow import Range, show_events  # noqa: PLC0415

    if last is None and since is None:
        last = 20
    span = Range(after=after, since=since, last=last, follow=follow)
    wanted = Filter(type=type_glob, model=model_glob)
    try:
        talk(app, lambda control: show_events(app, control, span, wanted))
    except KeyboardInterrupt:
        if not follow:
            raise
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None  # how following ends: no news
