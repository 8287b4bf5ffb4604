"""``mlxctl run``: ask a model, and read the answer as it comes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctl.app import App
from ctl.options import DURATION, Bounded, json_option

if TYPE_CHECKING:
    from ctl.conversation import Conversation

_EPILOG = """\b
Examples:
  mlxctl run mlxd/glimpse "What shape is this?" --image red_square.png
  mlxctl run mlxd/glimpse Compare these --image a.png --image b.png
  git diff | mlxctl run my-model --system "Write a commit message." -
  mlxctl run my-model "Why is the sky blue?" --temperature 0 --seed 7 --stats
  mlxctl run my-model                   a chat; /help there lists its commands

Several words make one prompt. "-" takes the prompt from stdin. Pictures stand before the
text, in the order given. The model is loaded if need be. Ctrl-C stops the answer.
"""


def _no_empty_text(
    _ctx: click.Context, _param: click.Parameter, stops: tuple[str, ...]
) -> tuple[str, ...]:
    """HTTP refuses it, too: no answer can be told to end at nothing."""
    if "" in stops:
        raise click.BadParameter("a stop text must not be empty")
    return stops


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture (PNG, JPEG, WebP, GIF); may be repeated.",
)
@click.option("--system", help="What the model should be or do.")
@click.option("--max-tokens", type=Bounded("max_tokens", int), help="Longest answer.")
@click.option(
    "--temperature", type=Bounded("temperature", float), help="0 (always the likeliest) to 2."
)
@click.option("--top-p", type=Bounded("top_p", float), help="Nucleus: above 0, up to 1.")
@click.option("--seed", type=Bounded("seed", int), help="Draw the same tokens again.")
@click.option(
    "--stop",
    "stops",
    multiple=True,
    metavar="TEXT",
    callback=_no_empty_text,
    help="Stop before TEXT.",
)
@click.option(
    "--timeout", type=DURATION, default="2m", show_default=True, help="Longest wait for the model."
)
@click.option("--stats", is_flag=True, help="Tokens, speed and times on stderr at the end.")
@json_option
@click.pass_obj
def run(  # noqa: PLR0913, PLR0917 - click hands every option over as an argument
    app: App,
    model: str,
    prompt: tuple[str, ...],
    images: tuple[Path, ...],
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    stops: tuple[str, ...],
    timeout: float,
    stats: bool,
) -> None:
    """Ask MODEL and print its answer as it comes; without a prompt: chat with it."""
    from ctl.conversation import Conversation, read_image  # noqa: PLC0415

    talk = Conversation(
        system=system,
        images=tuple(map(read_image, images)),
        settings={
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "max_tokens": max_tokens,
        },
        stop=stops,
    )
    deadline_ms = round(timeout * 1000)
    if not prompt and _somebody_types(app):
        _chat(app, model, talk, deadline_ms)
        return
    from ctl.answer import ask, outcome_shape, stats_line  # noqa: PLC0415

    talk.ask(_prompt_text(prompt))
    outcome = ask(app, model, talk.request(), needs=talk.needs, deadline_ms=deadline_ms)
    if app.as_json:
        app.show_json(outcome_shape(outcome))
    if stats:
        app.note(stats_line(outcome))


def _prompt_text(words: tuple[str, ...]) -> str:
    if words == ("-",) or (not words and not sys.stdin.isatty()):
        text = sys.stdin.read()
    else:
        text = " ".join(words)
    if not text.strip():
        raise click.UsageError("the prompt is empty; give it as words, or '-' to read stdin")
    return text


def _somebody_types(app: App) -> bool:
    return sys.stdin.isatty() and app.out_is_terminal and not app.as_json


def _chat(app: App, model: str, talk: "Conversation", deadline_ms: int) -> None:
    from ctl.chat import Chat, set_up_line_editing  # noqa: PLC0415

    keep_history = set_up_line_editing(app.home.root / "chat_history")
    try:
        Chat(app, model, talk, deadline_ms).run()
    finally:
        keep_history()
