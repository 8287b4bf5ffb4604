"""Everything that decides a row's next token: its sampler and its logits processors."""

from collections.abc import Callable, Mapping
from typing import Any

from daemon.wire.data import Generate
from daemon.worker.engines.answers import first_state
from daemon.worker.engines.constraint import Guard, Guide, Vocabulary, make_guide
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.sampling import (
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
        budget: Callable[[], Processor] | None = None,
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
            processors.append(self._budget())
        return processors

    @property
    def error(self) -> str:
        """Why the row cannot go on; empty if it can."""
        return "" if self._guard is None else self._guard.error


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
    guide = make_guide(request, tokenizer, vocabulary, thinking=thinking)
    budget = _budget(request, tokenizer, len(prompt), thinking=thinking)
    return Drawing(settings, vocabulary, len(prompt), guide, budget)


def _budget(
    request: Generate, tokenizer: Any, prompt_tokens: int, *, thinking: bool
) -> Callable[[], Processor] | None:
    """Makes the processor that bounds the thinking, if the request asks for it."""
    tokens_max = request.reasoning_tokens_max
    if tokens_max is None:
        return None
    if not tokenizer.has_thinking or tokens_max < 0:
        what = "this model does not think" if tokens_max >= 0 else "it must not be negative"
        raise invalid(f"thinking cannot be bounded: {what}", "reasoning_tokens_max")
    start, end = tuple(tokenizer.think_start_tokens), tuple(tokenizer.think_end_tokens)
    return lambda: ThinkingBudget(start, end, tokens_max, prompt_tokens, thinking=thinking)
