"""How far clients may set the numbers of an answer: the same for HTTP and for mlxctl."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

INT_MAX: Final = (1 << 31) - 1

Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
TopK = Annotated[int, Meta(ge=0, le=INT_MAX)]
MinP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
TokenCount = Annotated[int, Meta(ge=1, le=INT_MAX)]

NUMBERS: Final[dict[str, Any]] = {
    "temperature": Temperature,
    "top_p": TopP,
    "top_k": TopK,
    "min_p": MinP,
    "repetition_penalty": RepetitionPenalty,
    "presence_penalty": Penalty,
    "frequency_penalty": Penalty,
    "seed": Seed,
    "max_tokens": TokenCount,
}
"""By the name that a request gives them."""


def out_of_bounds(name: str, value: float) -> str | None:
    """What is wrong with a number of :data:`NUMBERS`, as HTTP says it; None if nothing is."""
    try:
        msgspec.convert(value, NUMBERS[name])
    except msgspec.ValidationError as error:
        return in_plain_words(str(error))
    return None


def in_plain_words(reason: str) -> str:
    """msgspec's "Expected …", to go behind a colon."""
    return reason[:1].lower() + reason[1:]
