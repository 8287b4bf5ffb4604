"""``mlxctl pull``: a model from the Hugging Face hub."""

import click

from ctl.app import App
from ctl.options import json_option
from ctl.progress import MODES, Mode
from daemon.wire.errors import Code, MlxdError

_EPILOG = """\b
Examples:
  mlxctl pull mlx-community/SmolLM2-135M-Instruct
  mlxctl pull mlx-community/Qwen3-8B-4bit --revision 4f2c1d0
  mlxctl pull mlx-community/Qwen3-8B-4bit --json | jq -r .path

The model goes into the Hugging Face cache, where other programs find it, too. Only what a
model needs is fetched: safetensors, configuration and tokenizer, never pickles. Ctrl-C keeps
what has come; the same command goes on from there. HF_TOKEN and 'hf auth login' open gated
models.
"""


@click.command(epilog=_EPILOG)
@click.argument("repo")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit.")
@click.option(
    "--progress", type=click.Choice(MODES), default="auto", help="How to show it on stderr."
)
@json_option
@click.pass_obj
def pull(app: App, repo: str, revision: str, progress: Mode) -> None:
    """Get the model REPO from the Hugging Face hub."""
    if not app.home.hub_dirs:
        raise MlxdError(
            Code.INVALID_REQUEST, "there is no place for models: set HF_HOME", field="HF_HOME"
        )
    from ctl.pulling import pull_model, pulled_page, pulled_shape  # noqa: PLC0415

    try:
        pulled = pull_model(app, repo, revision, app.home.hub_dirs[0], progress)
    except KeyboardInterrupt:
        raise MlxdError(
            Code.CANCELLED,
            "interrupted; what has come is kept",
            hint=f"go on with: mlxctl pull {repo}",
        ) from None
    if app.as_json:
        app.show_json(pulled_shape(pulled))
    else:
        app.show(*pulled_page(pulled))
