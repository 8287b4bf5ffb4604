"""Everything that decides a row's next token: its sampler and its logits processors."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from daemon.wire.data import Generate
from daemon.worker.engines.answers import first_state, may_think
from daemon.worker.engines.constraint import Guard, Guide, Vocabulary, has_form, make_guide
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.sampling import (
    GREEDY,
    PlacedSampler,
    Processor,
    Sampler,
    Settings,
    make_processors,
    make_sampler,
    resolve,
)
from daemon.worker.engines.thinking import ThinkingBudget


class Drawing:
    """One row's; samplers and processors are made anew whenever the row is put in."""

    def __init__(
        self,
        settings: Settings,
        vocabulary: Vocabulary,
        prompt_tokens: int,
        guide: Guide | None = None,
        budget: Callable[[Callable[[], bool]], Processor] | None = None,
    ) -> None:
        self._settings = settings
        self._guide = guide
        self._budget = budget
        self._vocabulary = vocabulary
        self._prompt_tokens = prompt_tokens
        self._guard: Guard | None = None

    def sampler(self, position: int) -> Sampler:
        """For an answer that goes on at token number ``position``."""
        return make_sampler(self._settings, self._vocabulary.size, position)

    def processors(self) -> list[Processor]:
        """In the order in which they apply; the constraint has the last word."""
        processors = make_processors(self._settings, self._prompt_tokens)
        if self._guide is not None:
            self._guard = Guard(self._guide, self._vocabulary, self._prompt_tokens)
            processors.append(self._guard)
        if self._budget is not None:
            processors.append(self._budget(self._answering))
        return processors

    def _answering(self) -> bool:
        return self._guard is not None and self._guard.binding

    @property
    def can_go_back(self) -> bool:
        """Whether tokens that were drawn may turn out not to be part of the answer: a grammar
        and a bound on thinking follow the row token by token, and cannot undo one."""
        return self._guide is None and self._budget is None

    def guessing(self, before: list[int]) -> tuple[Sampler, list[Processor]]:
        """Sampler and processors for a decoder that draws ahead, and takes back what it drew;
        for rows that :attr:`can_go_back`.

        Args:
            before: Tokens of the row that the decoder does not show to processors.
        """
        processors = make_processors(self._settings, self._prompt_tokens)
        sampler: Sampler = GREEDY
        if not self._settings.greedy:
            sampler = PlacedSampler(self._settings, self._vocabulary.size, self._prompt_tokens)
            processors.append(sampler.place)
        return sampler, [_behind(before, processors)] if processors else []

    @property
    def error(self) -> str:
        """Why the row cannot go on; empty if it can."""
        return "" if self._guard is None else self._guard.error


def _behind(before: list[int], processors: list[Processor]) -> Processor:
    """One processor that shows all of ``processors`` the tokens ``before`` as well."""
    head = mx.array(before, mx.uint32)

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        whole = mx.concatenate([head, tokens])
        for processor in processors:
            logits = processor(whole, logits)
        return logits

    return process


def make_drawing(
    request: Generate,
    prompt: list[int],
    tokenizer: Any,
    defaults: Mapping[str, Any],
    vocabulary: Vocabulary,
) -> Drawing:
    """A request's way to draw, completely checked.

    Args:
        defaults: The model's ``generation_config.json``.

    Raises:
        MlxdError: ``invalid_request`` naming the field.
    """
    settings = resolve(request.sampling, defaults, vocabulary.size)
    thinking = first_state(tokenizer, prompt) == "reasoning"
    may = has_form(request) and may_think(tokenizer, request, prompt)
    guide = make_guide(request, tokenizer, vocabulary, thinking=thinking, may_think=may)
    budget = _budget(request, tokenizer, len(prompt), thinking=thinking)
    return Drawing(settings, vocabulary, len(prompt), guide, budget)


def _budget(
    request: Generate, tokenizer: Any, prompt_tokens: int, *, thinking: bool
) -> Callable[[Callable[[], bool]], Processor] | None:
    """Makes the processor that bounds the thinking, if the request asks for it."""
    tokens_max = request.reasoning_tokens_max
    if tokens_max is None:
        return None
    if not tokenizer.has_thinking or tokens_max < 0:
        what = "this model does not think" if tokens_max >= 0 else "it must not be negative"
        raise invalid(f"thinking cannot be bounded: {what}", "reasoning_tokens_max")
    start, end = tuple(tokenizer.think_start_tokens), tuple(tokenizer.think_end_tokens)
    call = tuple(tokenizer.tool_call_start_tokens) if request.tools else ()
    return lambda answering: ThinkingBudget(
        start, end, tokens_max, prompt_tokens, thinking=thinking, call=call, answering=answering
    )
