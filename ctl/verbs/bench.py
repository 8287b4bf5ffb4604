"""``mlxctl bench``: how fast a model answers here, and whether that has changed."""

import time

import click

from ctl.app import App
from ctl.naming import named
from ctl.options import DURATION, json_option
from daemon.wire.errors import Code, MlxdError

_EPILOG = """\b
Examples:
  mlxctl bench mlx-community/Qwen3-8B-4bit
  mlxctl bench my-model --streams 8 --prompt 2000 --tokens 256
  mlxctl bench my-model --json | jq '.figures[].decode_tokens_per_s'

Measured through the daemon and the model's own socket, as programs use it: the time to the
first token, how fast prompts are read and answers written, alone and with several at once.
Every prompt is new. Results are kept, and shown beside the next ones of the same setting.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option(
    "--streams", default=4, show_default=True, type=click.IntRange(1, 64), help="How many at once."
)
@click.option(
    "--prompt", "words", default=512, show_default=True, type=click.IntRange(1), help="Words in."
)
@click.option(
    "--tokens", default=128, show_default=True, type=click.IntRange(2), help="Most tokens out."
)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Of each.")
@click.option(
    "--timeout", type=DURATION, default="2m", show_default=True, help="Longest wait for the model."
)
@json_option
@click.pass_obj
def bench(
    app: App, model: str, streams: int, words: int, tokens: int, runs: int, timeout: float
) -> None:
    """Measure how fast MODEL answers."""
    from ctl.bench import (  # noqa: PLC0415
        Measurement,
        bench_page,
        bench_shape,
        keep,
        last_like,
        read_measurements,
    )
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.measuring import Load, measure  # noqa: PLC0415
    from ctl.verbs.version import own_version  # noqa: PLC0415

    load = Load(
        model=named(app, model),
        streams=(1, streams) if streams > 1 else (1,),
        runs=runs,
        prompt_words=words,
        tokens_max=tokens,
        deadline_ms=round(timeout * 1000),
    )
    at_ms = time.time_ns() // 1_000_000

    def tell(count: int, run: int) -> None:
        if not app.as_json:
            app.note_dim(f"{count} at once, run {run} of {runs} …\n")

    figures = talk(app, lambda control: measure(control, load, at_ms, tell))
    now = Measurement(
        model=load.model,
        at_ms=at_ms,
        version=own_version(),
        runs=runs,
        prompt_words=words,
        tokens_max=tokens,
        figures=figures,
    )
    file = app.home.root / "bench.jsonl"
    before = last_like(read_measurements(file), now)
    if app.as_json:
        app.show_json(bench_shape(now, before))
    else:
        app.show(*bench_page(now, before))
    try:
        keep(file, now)
    except OSError as error:
        raise MlxdError(
            Code.INTERNAL, f"cannot keep this in {file}: {error.strerror}", field=str(file)
        ) from error
