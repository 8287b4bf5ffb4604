"""``mlxctl run``: ask a model, and read the answer as it comes."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import click
import msgspec

from ctl.app import App
from ctl.connect import CLIENT, talk
from ctl.options import DURATION, json_option
from ctl.progress import shown_progress
from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control, Generation, generate
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import format_duration_ms

_EPILOG = """\b
Examples:
  mlxctl run mlxd/glimpse "What shape is this?" --image red_square.png
  mlxctl run mlxd/glimpse Compare these --image a.png --image b.png
  git diff | mlxctl run my-model --system "Write a commit message." -
  mlxctl run my-model "Why is the sky blue?" --temperature 0 --seed 7 --stats

Several words make one prompt. "-" takes the prompt from stdin. Pictures stand before the
text, in the order given. The model is loaded if need be. Ctrl-C stops the answer.
"""


class Answer(msgspec.Struct, kw_only=True):
    """What came back, and when: times are milliseconds."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[d.ToolCall, ...] = ()
    first_at_ms: float | None = None
    last_at_ms: float = 0.0
    tokens_at_first: int = 0
    tokens: int = 0

    def take(self, delta: d.Delta, at_ms: float) -> None:
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.tool_calls += delta.tool_calls
        if self.first_at_ms is None:
            self.first_at_ms = at_ms
            self.tokens_at_first = delta.tokens
        self.last_at_ms = at_ms
        self.tokens = max(self.tokens, delta.tokens)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What the user waited for, as seen from here.

    Attributes:
        load_ms: Waiting for the model to be loaded; 0 if it was.
        ttft_ms: From the request to the first delta; None if none came.
        tokens_per_s: After the first delta; None for fewer than two.
        total_ms: From the request to the end of the answer, without the load.
    """

    load_ms: int
    ttft_ms: int | None
    tokens_per_s: float | None
    total_ms: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A finished request."""

    model: str
    answer: Answer
    done: d.Done
    timing: Timing


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
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest.")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Nucleus.")
@click.option("--seed", type=int, help="Draw the same tokens again.")
@click.option("--stop", "stops", multiple=True, metavar="TEXT", help="Stop before TEXT.")
@click.option(
    "--timeout", type=DURATION, default="2m", show_default=True, help="Longest wait for the model."
)
@click.option("--stats", is_flag=True, help="Tokens, speed and times on stderr at the end.")
@json_option
@click.pass_obj
def run(
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
    """Ask MODEL and print its answer as it comes."""
    request = d.Generate(
        lease="",
        messages=_conversation(_prompt_text(prompt), images, system),
        sampling=d.Sampling(temperature=temperature, top_p=top_p, seed=seed),
        max_tokens=max_tokens,
        stop=stops,
    )
    needs = ("vision",) if images else ("text",)
    outcome = talk(
        app, lambda control: _generate(app, control, model, request, needs, round(timeout * 1000))
    )
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


def _conversation(
    text: str, images: tuple[Path, ...], system: str | None
) -> tuple[d.ChatMessage, ...]:
    pictures = tuple(d.ImagePart(data=_read(image)) for image in images)
    user = d.ChatMessage(role="user", parts=(*pictures, d.TextPart(text=text)))
    if system is None:
        return (user,)
    return d.ChatMessage(role="system", parts=(d.TextPart(text=system),)), user


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise MlxdError(
            Code.INVALID_REQUEST, f"cannot read {image}: {error.strerror}", field="image"
        ) from error


async def _generate(
    app: App,
    control: Control,
    model: str,
    request: d.Generate,
    needs: tuple[str, ...],
    deadline_ms: int,
) -> Outcome:
    sent_at_ms = 0.0

    def make(granted: c.Granted) -> d.Generate:
        nonlocal sent_at_ms
        sent_at_ms = anyio.current_time() * 1000
        return msgspec.structs.replace(request, lease=granted.lease)

    async with AsyncExitStack() as stack:
        with shown_progress(app) as on_progress:
            opened = generate(
                control,
                model,
                make,
                client=CLIENT,
                needs=needs,
                deadline_ms=deadline_ms,
                on_progress=on_progress,
            )
            granted, generation = await stack.enter_async_context(opened)
        answer = await _read_answer(app, generation)
        ended_at_ms = anyio.current_time() * 1000
    if generation.done is None:
        raise MlxdError(Code.INTERNAL, "the answer ended without its terminal frame")
    return Outcome(
        model=granted.model,
        answer=answer,
        done=generation.done,
        timing=_timing(answer, granted.load_ms, sent_at_ms, ended_at_ms),
    )


async def _read_answer(app: App, generation: Generation) -> Answer:
    """Print the answer as it comes; what had come stands on a line of its own in any case."""
    answer = Answer()
    try:
        async for delta in generation:
            answer.take(delta, anyio.current_time() * 1000)
            if not app.as_json:
                _print_delta(app, delta)
    finally:
        if not app.as_json and answer.text and not answer.text.endswith("\n"):
            app.write("\n")
    return answer


def _print_delta(app: App, delta: d.Delta) -> None:
    if delta.reasoning:
        app.note_dim(delta.reasoning)
    if delta.text:
        app.write(delta.text)
    for call in delta.tool_calls:
        app.write(f"{call.name}({call.arguments})\n")


def _timing(answer: Answer, load_ms: int, sent_at_ms: float, ended_at_ms: float) -> Timing:
    ttft_ms = speed = None
    if answer.first_at_ms is not None:
        ttft_ms = round(answer.first_at_ms - sent_at_ms)
        decoding_s = (answer.last_at_ms - answer.first_at_ms) / 1000
        decoded = answer.tokens - answer.tokens_at_first
        if decoded > 0 and decoding_s > 0:
            speed = round(decoded / decoding_s, 1)
    return Timing(
        load_ms=load_ms,
        ttft_ms=ttft_ms,
        tokens_per_s=speed,
        total_ms=round(ended_at_ms - sent_at_ms),
    )


def outcome_shape(outcome: Outcome) -> dict[str, object]:
    """The ``--json`` shape of a finished request."""
    return {
        "v": 1,
        "model": outcome.model,
        "text": outcome.answer.text,
        "reasoning": outcome.answer.reasoning,
        "tool_calls": msgspec.to_builtins(outcome.answer.tool_calls),
        "finish_reason": outcome.done.finish_reason,
        "stop_text": outcome.done.stop_text,
        "usage": msgspec.to_builtins(outcome.done.usage),
        "timing": msgspec.to_builtins(outcome.timing),
    }


def stats_line(outcome: Outcome) -> str:
    """Counts from the engine, times as seen from here."""
    usage, timing = outcome.done.usage, outcome.timing
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    facts = [f"prompt {usage.prompt_tokens:,} tokens{cached}"]
    facts.append(f"answer {usage.completion_tokens:,} tokens, ended by {_ending(outcome.done)}")
    if timing.ttft_ms is not None:
        facts.append(f"first after {format_duration_ms(timing.ttft_ms)}")
    if timing.tokens_per_s is not None:
        facts.append(f"{timing.tokens_per_s:,.1f} tok/s")
    facts.append(f"{format_duration_ms(timing.total_ms)} in all")
    if timing.load_ms:
        facts.append(f"after a wait of {format_duration_ms(timing.load_ms)} for the model")
    return " · ".join(facts)


def _ending(done: d.Done) -> str:
    if done.stop_text is not None:
        return f"the stop text {done.stop_text!r}"
    return {"stop": "the model", "length": "the token limit", "tool_calls": "a tool call"}[
        done.finish_reason
    ]
