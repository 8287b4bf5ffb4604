"""``mlxctl completion``: what makes a shell complete verbs, options and names of models."""

import click

from ctl.app import App
from ctl.options import json_option

_EPILOG = """\b
Examples:
  mlxctl completion bash > ~/.local/share/bash-completion/completions/mlxctl
  mlxctl completion zsh > ~/.zfunc/_mlxctl        with ~/.zfunc in fpath
  mlxctl completion fish > ~/.config/fish/completions/mlxctl.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    from ctl.completing import script  # noqa: PLC0415

    app = ctx.find_object(App)
    group = ctx.find_root().command
    assert app is not None
    assert isinstance(group, click.Group)
    text = script(shell, group)
    if app.as_json:
        app.show_json({"v": 1, "shell": shell, "script": text})
    else:
        app.write(text)
