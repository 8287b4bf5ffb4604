"""One request at a model: streamed to the terminal, counted, and summed up."""

from contextlib import AsyncExitStack

import anyio
import msgspec

from ctl.app import CLIENT, App
from ctl.connect import talk
from ctl.progress import shown_progress
from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.generation import Generation, generate
from daemon.wire.units import format_duration_ms


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


def ask(
    app: App,
    model: str,
    request: d.Generate,
    *,
    needs: tuple[str, ...],
    deadline_ms: int,
    answer: Answer | None = None,
) -> Outcome:
    """Send ``request`` to ``model`` and print the answer as it comes, unless JSON is wanted.

    Args:
        request: Complete but for its lease.
        needs: Capabilities that the model must have.
        deadline_ms: The longest wait for the model.
        answer: Takes what comes, for whoever wants it after a failure or Ctrl-C, too.

    Raises:
        MlxdError: The request's one failure; what had come was printed.
    """
    into = answer or Answer()
    return talk(
        app, lambda control: _generate(app, control, model, request, needs, deadline_ms, into)
    )


async def _generate(
    app: App,
    control: Control,
    model: str,
    request: d.Generate,
    needs: tuple[str, ...],
    deadline_ms: int,
    answer: Answer,
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
        await _read_answer(app, generation, answer)
        ended_at_ms = anyio.current_time() * 1000
    if generation.done is None:
        raise MlxdError(Code.INTERNAL, "the answer ended without its terminal frame")
    return Outcome(
        model=granted.model,
        answer=answer,
        done=generation.done,
        timing=timing_of(answer, granted.load_ms, sent_at_ms, ended_at_ms),
    )


async def _read_answer(app: App, generation: Generation, answer: Answer) -> None:
    """Print the answer as it comes; what had come stands on a line of its own in any case."""
    try:
        async for delta in generation:
            answer.take(delta, anyio.current_time() * 1000)
            if not app.as_json:
                _print_delta(app, delta)
    finally:
        if not app.as_json and answer.text and not answer.text.endswith("\n"):
            app.write("\n")


def _print_delta(app: App, delta: d.Delta) -> None:
    if delta.reasoning:
        app.note_dim(delta.reasoning)
    if delta.text:
        app.write(delta.text)
    for call in delta.tool_calls:
        app.write(f"{call.name}({call.arguments})\n")


def timing_of(answer: Answer, load_ms: int, sent_at_ms: float, ended_at_ms: float) -> Timing:
    """The times of a finished request; the two moments are on the clock of ``answer``."""
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
