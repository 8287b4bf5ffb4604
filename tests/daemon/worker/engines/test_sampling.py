"""Sampling against plain numpy: what each parameter does, and what is refused."""

from collections import Counter
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from daemon.wire.data import Sampling
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.sampling import (
    GREEDY,
    Settings,
    forcing,
    make_processors,
    make_sampler,
    resolve,
)

VOCAB = 8
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -3.0], dtype=np.float32)


def settings(defaults: dict[str, Any] | None = None, **asked: Any) -> Settings:
    return resolve(Sampling(**asked), defaults or {}, VOCAB)


def log_softmax(logits: np.ndarray[Any, Any]) -> mx.array:
    return mx.array(logits - np.log(np.exp(logits).sum()))[None]


def token_of(sampled: mx.array) -> int:
    token = sampled.item()
    assert isinstance(token, int)
    return token


def draws(count: int, **asked: Any) -> list[int]:
    sampler = make_sampler(settings(**asked), VOCAB, position=0)
    logprobs = log_softmax(LOGITS)
    return [token_of(sampler(logprobs)) for _ in range(count)]


def test_greedy_rows_share_one_sampler() -> None:
    for asked in (
        settings(temperature=0),
        settings(temperature=1, top_p=0),
        settings(temperature=2, top_k=1),
    ):
        assert make_sampler(asked, VOCAB, 0) is GREEDY
    assert GREEDY(log_softmax(LOGITS)).item() == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_gives_that_distribution(temperature: float) -> None:
    found = Counter(draws(3000, temperature=temperature, seed=3))
    weights = np.exp(LOGITS / temperature)
    for token, share in enumerate(weights / weights.sum()):
        # Five standard deviations of a binomial count.
        assert abs(found[token] / 3000 - share) < 5 * np.sqrt(share * (1 - share) / 3000) + 1e-9


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 100}, set(range(8))),
        ({"top_p": 0.6}, {0, 1}),
        ({"min_p": 0.3}, {0, 1}),
    ],
)
def test_filters_keep_just_these(asked: dict[str, Any], kept: set[int]) -> None:
    assert set(draws(400, temperature=3.0, seed=1, **asked)) == kept


def test_a_seed_repeats_from_any_position() -> None:
    whole = draws(20, temperature=2.0, seed=9)
    assert whole == draws(20, temperature=2.0, seed=9) != draws(20, temperature=2.0, seed=10)
    resumed = make_sampler(settings(temperature=2.0, seed=9), VOCAB, position=7)
    assert [token_of(resumed(log_softmax(LOGITS))) for _ in range(13)] == whole[7:]


def test_without_a_seed_every_request_draws_its_own() -> None:
    assert len({tuple(draws(12, temperature=2.0)) for _ in range(4)}) == 4


def test_a_drawing_processor_leaves_what_its_sampler_drew() -> None:
    asked = settings(temperature=2.0, seed=4)
    process = forcing(make_sampler(asked, VOCAB, 0))
    sampler = make_sampler(asked, VOCAB, 0)
    for _ in range(10):
        logits = process(mx.array([1]), mx.array(LOGITS)[None])
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        assert GREEDY(logprobs).item() == sampler(log_softmax(LOGITS)).item()


def test_penalties_and_bias_against_numpy() -> None:
    asked = settings(
        repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=0.5, logit_bias={7: 9.0}
    )
    tokens, prompt_tokens = [0, 4, 1, 1, 6], 2
    expected = LOGITS.copy()
    expected[7] += 9.0
    for token in set(tokens):
        expected[token] *= 1.5 if expected[token] < 0 else 1 / 1.5
    for token, count in Counter(tokens[prompt_tokens:]).items():
        expected[token] -= 0.5 * count + 0.25
    logits = mx.array(LOGITS)[None]
    for process in make_processors(asked, prompt_tokens):
        logits = process(mx.array(tokens), logits)
    np.testing.assert_allclose(np.array(logits[0]), expected, rtol=1e-6)


def test_penalties_before_the_first_token() -> None:
    (process,) = make_processors(settings(presence_penalty=1.0), prompt_tokens=2)
    np.testing.assert_array_equal(
        np.array(process(mx.array([3, 4]), mx.array(LOGITS)[None])[0]), LOGITS
    )


def test_neutral_parameters_cost_nothing() -> None:
    assert make_processors(settings(), prompt_tokens=3) == []


@pytest.mark.parametrize(
    ("defaults", "asked", "temperature", "top_p"),
    [
        ({}, {}, 0.0, 1.0),
        ({"do_sample": True}, {}, 1.0, 1.0),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, {}, 0.6, 0.9),
        ({"temperature": 0.6}, {"temperature": 0}, 0.0, 1.0),
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, {}, 0.0, 1.0),
        ({"do_sample": True, "top_p": None}, {"temperature": 0.3}, 0.3, 1.0),
    ],
)
def test_none_takes_the_models_default_then_the_neutral_value(
    defaults: dict[str, Any], asked: dict[str, Any], temperature: float, top_p: float
) -> None:
    found = settings(defaults, **asked)
    assert (found.temperature, found.top_p) == (temperature, top_p)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("min_p", -1),
        ("repetition_penalty", 0),
        ("frequency_penalty", float("inf")),
        ("seed", 1 << 70),
        ("logit_bias", {VOCAB: 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {0: float("nan")}),
    ],
)
def test_impossible_values_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(MlxdError) as caught:
        settings(**{name: value})
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, name)
