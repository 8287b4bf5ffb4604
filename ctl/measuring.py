"""How fast a model answers: requests at its worker, alone and several at once."""

import random
from collections.abc import Callable, Iterable
from statistics import median
from typing import Final

import anyio
import msgspec

from ctl.answer import Answer, timing_of
from ctl.app import CLIENT
from daemon.wire import control as c
from daemon.wire import data as d
from daemon.wire.client import Control
from daemon.wire.errors import Code, MlxdError
from daemon.wire.generation import generate

_TEXT: Final = (
    "the of and to in is that it was for on are as with his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about"
)
WORDS: Final = _TEXT.split()
"""Words that every tokenizer has as one token."""
WARM_UP_TOKENS: Final = 8


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the model.

    Attributes:
        prompt_words: Length of each prompt; every prompt is new, so that no cache helps.
        tokens_max: Length of each answer; a model may end earlier.
    """

    model: str
    streams: tuple[int, ...]
    runs: int
    prompt_words: int
    tokens_max: int
    deadline_ms: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one number of streams gave: medians of the runs.

    Attributes:
        ttft_ms: From the request to its first token, half of the requests faster.
        prefill_tokens_per_s: Prompt tokens by the engine's own time for them; null if it
            took less than a millisecond.
        decode_tokens_per_s: Of one stream, after its first token; null for one-token answers.
        total_tokens_per_s: Of all streams together, from the first token of any to the end.
    """

    streams: int
    ttft_ms: int
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    total_tokens_per_s: float | None
    prompt_tokens: int
    completion_tokens: int


class _Sample(msgspec.Struct, frozen=True, kw_only=True):
    ttft_ms: int
    decode_tokens_per_s: float | None
    first_at_ms: float
    ended_at_ms: float
    tokens_at_first: int
    tokens_at_last: int
    usage: d.Usage


async def measure(
    control: Control, load: Load, seed: int, on_run: Callable[[int, int], None]
) -> tuple[Figures, ...]:
    """Ask as ``load`` says, and add up.

    Args:
        seed: Other prompts for another seed.
        on_run: Told before each run: how many streams, which run.

    Raises:
        MlxdError: What a request failed with.
    """
    draw = random.Random(seed)  # noqa: S311 - prompts, not secrets
    await _ask(control, load, _prompt(draw, load), WARM_UP_TOKENS)
    found = []
    for streams in load.streams:
        runs = []
        for run in range(load.runs):
            on_run(streams, run + 1)
            runs.append(await _run(control, load, [_prompt(draw, load) for _ in range(streams)]))
        found.append(_figures(streams, runs))
    return tuple(found)


async def _run(control: Control, load: Load, prompts: list[str]) -> list[_Sample]:
    samples: list[_Sample] = []

    async def one(prompt: str) -> None:
        samples.append(await _ask(control, load, prompt, load.tokens_max))

    try:
        async with anyio.create_task_group() as tasks:
            for prompt in prompts:
                tasks.start_soon(one, prompt)
    except BaseExceptionGroup as group:
        # All of them failed alike, or one failed and the others were withdrawn.
        failure = group.split(MlxdError)[0]
        if failure is None:
            raise
        raise _first(failure) from group
    return samples


def _first(group: BaseExceptionGroup[MlxdError]) -> MlxdError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _ask(control: Control, load: Load, prompt: str, tokens_max: int) -> _Sample:
    sent_at_ms = 0.0

    def make(granted: c.Granted) -> d.Generate:
        nonlocal sent_at_ms
        sent_at_ms = anyio.current_time() * 1000
        sampling = d.Sampling(temperature=1.0, seed=1)  # greedy small models repeat themselves
        return d.Generate(
            lease=granted.lease, prompt=prompt, max_tokens=tokens_max, sampling=sampling
        )

    answer = Answer()
    opened = generate(
        control, load.model, make, client=CLIENT, needs=("text",), deadline_ms=load.deadline_ms
    )
    async with opened as (granted, generation):
        async for delta in generation:
            answer.take(delta, anyio.current_time() * 1000)
    ended_at_ms = anyio.current_time() * 1000
    timing = timing_of(answer, granted.load_ms, sent_at_ms, ended_at_ms)
    if generation.done is None:
        raise MlxdError(Code.INTERNAL, "the answer ended without its terminal frame")
    # A model may have nothing to say: then its end is the first that is heard of it.
    silent = timing.ttft_ms is None or answer.first_at_ms is None
    return _Sample(
        ttft_ms=timing.total_ms if timing.ttft_ms is None else timing.ttft_ms,
        decode_tokens_per_s=timing.tokens_per_s,
        first_at_ms=ended_at_ms if answer.first_at_ms is None else answer.first_at_ms,
        ended_at_ms=ended_at_ms if silent else answer.last_at_ms,
        tokens_at_first=answer.tokens_at_first,
        tokens_at_last=answer.tokens,
        usage=generation.done.usage,
    )


def _figures(streams: int, runs: list[list[_Sample]]) -> Figures:
    samples = [sample for run in runs for sample in run]
    return Figures(
        streams=streams,
        ttft_ms=round(median(sample.ttft_ms for sample in samples)),
        prefill_tokens_per_s=_median(_prefill(sample.usage) for sample in samples),
        decode_tokens_per_s=_median(sample.decode_tokens_per_s for sample in samples),
        total_tokens_per_s=_median(_total(run) for run in runs),
        prompt_tokens=round(median(sample.usage.prompt_tokens for sample in samples)),
        completion_tokens=round(median(sample.usage.completion_tokens for sample in samples)),
    )


def _prefill(usage: d.Usage) -> float | None:
    computed = usage.prompt_tokens - usage.cached_tokens
    return computed * 1000 / usage.prefill_ms if usage.prefill_ms > 0 else None


def _total(run: list[_Sample]) -> float | None:
    """Of all streams from the first text on: what was there with it took its time before."""
    first = min(run, key=lambda sample: sample.first_at_ms)
    span_ms = max(sample.ended_at_ms for sample in run) - first.first_at_ms
    tokens = sum(sample.tokens_at_last for sample in run) - first.tokens_at_first
    return tokens * 1000 / span_ms if span_ms > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 1) if known else None


def _prompt(draw: random.Random, load: Load) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(load.prompt_words))
