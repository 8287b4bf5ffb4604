"""How one row's next token is drawn: parameters checked, defaults resolved, functions made.

Every sampled row draws with random numbers of its own, made from its seed and the
position of the token; so the same seed gives the same answer whoever else is in the
batch, and after a row was taken out and put back. Greedy rows share one sampler object,
which mlx_lm's batch then calls once for all of them.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import mlx.core as mx
import msgspec
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, greedy_sampler

from daemon.wire.data import Sampling
from daemon.wire.errors import Code, MlxdError

Sampler = Callable[[mx.array], mx.array]
"""Log probabilities ``[rows, vocabulary]`` to tokens ``[rows]``."""

Processor = Callable[[mx.array, mx.array], mx.array]
"""(tokens of one row so far, its logits ``[1, vocabulary]``) to logits."""

GREEDY: Final[Sampler] = greedy_sampler
_SEED_MAX: Final = 2**63 - 1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Checked parameters with every default filled in.

    Attributes:
        temperature: 0 means greedy.
        top_p, top_k, min_p: 1.0, 0 and 0.0 keep every token.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_p == 0 or self.top_k == 1


def resolve(sampling: Sampling, model_defaults: Mapping[str, Any], vocab_size: int) -> Settings:
    """A request's sampling parameters, checked.

    A parameter that is None takes the model's ``generation_config.json``, else the
    neutral value. Temperature: a file that says ``do_sample: false``, or that says
    nothing of sampling, means greedy; ``do_sample: true`` alone means 1.0.

    Raises:
        MlxdError: ``invalid_request`` naming the parameter.
    """
    settings = Settings(
        temperature=_number(sampling, model_defaults, "temperature", _temperature(model_defaults)),
        top_p=_number(sampling, model_defaults, "top_p", 1.0),
        top_k=max(0, int(_number(sampling, model_defaults, "top_k", 0))),
        min_p=_number(sampling, model_defaults, "min_p", 0.0),
        seed=int.from_bytes(os.urandom(7)) if sampling.seed is None else sampling.seed,
        repetition_penalty=_number(sampling, model_defaults, "repetition_penalty", 1.0),
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        logit_bias=dict(sampling.logit_bias or {}),
    )
    _check(settings, vocab_size)
    return settings


def _temperature(model_defaults: Mapping[str, Any]) -> float:
    return 1.0 if model_defaults.get("do_sample") is True else 0.0


def _number(
    sampling: Sampling, model_defaults: Mapping[str, Any], name: str, neutral: float
) -> float:
    asked = getattr(sampling, name)
    if asked is not None:
        return float(asked)
    if name != "repetition_penalty" and model_defaults.get("do_sample") is False:
        return neutral
    default = model_defaults.get(name)
    return float(default) if isinstance(default, int | float) else neutral


def _check(settings: Settings, vocab_size: int) -> None:
    _within("temperature", settings.temperature, 0.0, 100.0)
    _within("top_p", settings.top_p, 0.0, 1.0)
    _within("min_p", settings.min_p, 0.0, 1.0)
    _within("seed", settings.seed, -_SEED_MAX - 1, _SEED_MAX)
    _within("repetition_penalty", settings.repetition_penalty, 0.01, 100.0)
    _within("presence_penalty", settings.presence_penalty, -100.0, 100.0)
    _within("frequency_penalty", settings.frequency_penalty, -100.0, 100.0)
    for token, bias in settings.logit_bias.items():
        # MLX scatters without a bounds check: an id beyond the logits ends the process.
        if not 0 <= token < vocab_size:
            raise _invalid(
                "logit_bias", f"token {token} is not in the vocabulary of {vocab_size} tokens"
            )
        _within("logit_bias", bias, -1e4, 1e4)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise _invalid(name, f"must be between {low:g} and {high:g}, not {value:g}")


def _invalid(name: str, what: str) -> MlxdError:
    return MlxdError(Code.INVALID_REQUEST, f"{name} {what}", field=name)


def make_sampler(settings: Settings, vocab_size: int, position: int) -> Sampler:
    """The sampler of one row whose next token is number ``position`` of its answer."""
    if settings.greedy:
        return GREEDY
    return _RowSampler(settings, vocab_size, position)


class _RowSampler:
    """Draws one row's tokens, each with a key made from the seed and its position."""

    def __init__(self, settings: Settings, vocab_size: int, position: int) -> None:
        self._settings = settings
        self._vocab_size = vocab_size
        self._position = position

    def __call__(self, logprobs: mx.array) -> mx.array:
        self._position += 1
        return _drawn(self._settings, self._vocab_size, self._position - 1, logprobs)


class PlacedSampler:
    """Draws tokens in any order: :meth:`place` is told before each what comes before it.

    At one position every model draws with the same key, so that a draft which thinks like
    the model also mostly draws like it; and what the model draws is what it draws alone.
    """

    def __init__(self, settings: Settings, vocab_size: int, prompt_tokens: int) -> None:
        self._settings = settings
        self._vocab_size = vocab_size
        self._prompt_tokens = prompt_tokens
        self._position = 0

    def place(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """A logits processor that changes nothing."""
        self._position = tokens.size - self._prompt_tokens
        return logits

    def __call__(self, logprobs: mx.array) -> mx.array:
        return _drawn(self._settings, self._vocab_size, self._position, logprobs)


def _drawn(settings: Settings, vocab_size: int, position: int, logprobs: mx.array) -> mx.array:
    """Token number ``position`` of an answer, drawn from its log probabilities.

    Filters are mlx_lm's and come in its order: top_p, min_p, top_k, then the temperature.
    """
    if settings.top_p < 1.0:
        logprobs = apply_top_p(logprobs, settings.top_p)
    if settings.min_p > 0.0:
        logprobs = apply_min_p(logprobs, settings.min_p)
    if 0 < settings.top_k < vocab_size:
        logprobs = apply_top_k(logprobs, settings.top_k)
    key = _key(settings.seed, position)
    return mx.random.categorical(logprobs * (1.0 / settings.temperature), key=key)


def _key(seed: int, position: int) -> mx.array:
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    key: mx.array = mx.random.key(int.from_bytes(digest))
    return key


def make_processors(settings: Settings, prompt_tokens: int) -> list[Processor]:
    """The logits processors of one row, in the order in which they apply.

    Repetition penalty is over prompt and answer (as transformers has it); presence and
    frequency penalty are over the answer alone (as OpenAI documents them).
    """
    processors: list[Processor] = []
    if settings.logit_bias:
        processors.append(_bias(settings.logit_bias))
    if settings.repetition_penalty != 1.0:
        processors.append(_repetition(settings.repetition_penalty))
    if settings.presence_penalty or settings.frequency_penalty:
        processors.append(
            _occurrence(settings.presence_penalty, settings.frequency_penalty, prompt_tokens)
        )
    return processors


def _bias(logit_bias: Mapping[int, float]) -> Processor:
    tokens = mx.array(list(logit_bias.keys()))
    values = mx.array(list(logit_bias.values()))

    def process(_tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, tokens].add(values.astype(logits.dtype))

    return process


def _repetition(penalty: float) -> Processor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = logits[:, tokens]
        logits[:, tokens] = mx.where(seen < 0, seen * penalty, seen / penalty)
        return logits

    return process


def _occurrence(presence: float, frequency: float, prompt_tokens: int) -> Processor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        answer = tokens[prompt_tokens:]
        if answer.size == 0:
            return logits
        counts = mx.zeros((logits.shape[-1],), dtype=logits.dtype).at[answer].add(1)
        return logits - frequency * counts - presence * (counts > 0).astype(logits.dtype)

    return process


def forcing(sampler: Sampler) -> Processor:
    """A processor that draws the token itself and leaves only that one possible.

    For a batch whose one sampler is greedy and shared by all rows (mlx_vlm): its argmax
    then finds what this row's own sampler drew.
    """

    def process(_tokens: mx.array, logits: mx.array) -> mx.array:
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        token = sampler(logprobs)
        drawn = mx.arange(logits.shape[-1])[None] == token[:, None]
        return mx.where(drawn, mx.array(0.0, logits.dtype), mx.array(-math.inf, logits.dtype))

    return process
