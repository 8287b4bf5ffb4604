"""``mlxctl rm``: a model off the disk."""

import sys

import click

from ctl.app import App
from ctl.blocks import Line
from ctl.options import json_option
from daemon.wire.units import format_bytes

_EPILOG = """\b
Examples:
  mlxctl rm mlx-community/SmolLM2-135M-Instruct
  mlxctl rm mlx-community/Qwen3-8B-4bit --revision 4f2c1d0 --yes

Only models of the Hugging Face cache are removed, never folders of yours; what a pull has left
unfinished goes, too. A model that is in memory stays, with exit code 6: unload it first.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--revision", help="Only this one: a commit, its beginning, a branch or a tag.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def rm(app: App, model: str, revision: str | None, yes: bool) -> None:
    """Remove MODEL from the disk."""
    from ctl.removing import find_removal, remove  # noqa: PLC0415

    removal = find_removal(app, model, revision)
    size = format_bytes(removal.size_bytes)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here; add --yes to remove it")
        click.confirm(f"Remove {model} ({size}) from {removal.folder}?", abort=True, err=True)
    remove(removal)
    if app.as_json:
        app.show_json({"v": 1, "model": model, "freed_bytes": removal.size_bytes})
    else:
        app.show(Line(f"{model} is removed: {size} freed"))
