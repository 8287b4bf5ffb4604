"""How each row is drawn: its own way, whoever is beside, and by the numbers of the libraries."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_logits_processors
from mlx_lm.utils import load as lm_load

from daemon.wire.data import ChatMessage, Generate, ImagePart, Sampling, TextPart
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import REGISTRY
from tests.contract.bench import NO_END, Answer, Bench, alone, begin
from tests.contract.test_vision_families import ONE, OTHER, prompt_tokens, user, voice
from tests.contract.tiny import build_text_model, build_vision_model

PROMPT = (*range(30, 50), 31, 31, 40)
BIAS = dict.fromkeys(range(60, 90), 2.5) | dict(NO_END.logit_bias or {})
WAYS: Mapping[str, Sampling] = {
    "greedy": Sampling(temperature=0),
    "warm": Sampling(temperature=0.8, seed=1),
    "another seed": Sampling(temperature=0.8, seed=2),
    "hot": Sampling(temperature=2.0, top_p=0.9, seed=1),
    "few": Sampling(temperature=1.5, top_k=4, min_p=0.05, seed=1),
    "no repeats": Sampling(temperature=0, repetition_penalty=1.9),
    "new words": Sampling(temperature=0, presence_penalty=1.5, frequency_penalty=0.7),
    "biased": Sampling(temperature=0, logit_bias=BIAS),
    "biased and warm": Sampling(temperature=0.8, seed=1, logit_bias=BIAS),
}
BUILDERS = {"text": build_text_model, "vision": build_vision_model}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: build(root / kind) for kind, build in BUILDERS.items()}


@pytest.fixture
def open_bench(folders: dict[str, Path]) -> Iterator[Callable[..., Bench]]:
    engines = []

    def open_one(kind: str, **changes: Any) -> Bench:
        engine = REGISTRY[kind]()
        engines.append(engine)
        told = begin(folders[kind], kind, rows_max=16, kv_tokens=1 << 15, **changes)
        engine.load(told, lambda _done, _total: None)
        return Bench(engine, told)

    yield open_one
    for engine in engines:
        engine.close()


def ask_all(*parts: ImagePart | TextPart) -> list[Generate]:
    """One question, drawn in every way; half of them with log probabilities."""
    return [
        Generate(
            lease="l",
            messages=(user(*parts),),
            max_tokens=14,
            sampling=sampling,
            logprobs=i % 2 or None,
        )
        for i, sampling in enumerate(WAYS.values())
    ]


def same(answer: Answer, expected: Answer) -> bool:
    """The same text, and where they were asked for the same probabilities."""
    assert answer.fail is None
    near = voice(answer) == pytest.approx(voice(expected), abs=1e-3)
    return answer.text == expected.text and near


@pytest.mark.parametrize("kind", BUILDERS)
def test_rows_of_one_batch_are_each_drawn_in_their_own_way(
    open_bench: Callable[..., Bench], kind: str
) -> None:
    bench = open_bench(kind, kv_bytes=0)
    shown = (ONE, TextPart("What is it?")) if kind == "vision" else (TextPart("What is it?"),)
    requests = ask_all(*shown)
    single = [alone(bench, request) for request in requests]
    assert len({answer.text for answer in single}) == len(WAYS), "each way shows"
    together = [bench.ask(request) for request in requests]
    bench.run(*together)
    others = [bench.ask(request) for request in reversed(requests)]
    bench.run(*others)
    for name, one, two, expected in zip(WAYS, together, reversed(others), single, strict=True):
        assert same(one, expected), name
        assert same(two, expected), name


def test_pictures_and_text_come_in_the_order_of_the_message(
    open_bench: Callable[..., Bench],
) -> None:
    """In each order another answer; alone and in a batch the same one."""
    bench = open_bench("vision", kv_bytes=0)
    first, second = TextPart("This is one."), TextPart("Compare it!")
    orders: list[tuple[ImagePart | TextPart, ...]] = [
        (ONE, first, OTHER, second),
        (OTHER, first, ONE, second),
        (ONE, OTHER, first, second),
        (first, ONE, OTHER, second),
        (ONE, second, OTHER, first),
    ]
    requests = [
        Generate(lease="l", messages=(user(*parts),), max_tokens=8, sampling=NO_END, logprobs=0)
        for parts in orders
    ]
    single = [alone(bench, request) for request in requests]
    assert len({prompt_tokens(answer) for answer in single}) == 1, "the same parts in each"
    assert len({tuple(voice(answer)) for answer in single}) == len(orders)
    together = [bench.ask(request) for request in requests]
    bench.run(*together)
    assert all(same(*pair) for pair in zip(together, single, strict=True))


def of_library(folder: Path, *processors: Any, count: int = 16) -> tuple[list[int], list[float]]:
    """mlx_lm's greedy tokens after PROMPT, and the log probability of each."""
    model = lm_load(str(folder))[0]
    steps = generate_step(
        mx.array(PROMPT), model, max_tokens=count, logits_processors=list(processors)
    )
    tokens, scores = [], []
    for token, logprobs in steps:
        tokens.append(int(token))
        scores.append(logprobs[token].item())
    return tokens, scores


def behind_prompt(processor: Any) -> Any:
    """For penalties that are of the answer alone: mlx_lm's see the prompt as well."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        answer = tokens[len(PROMPT) :]
        return processor(answer, logits) if answer.size else logits

    return process


ALL = 1 << 20
END = dict(NO_END.logit_bias or {})
FEW = {60: 6.0, 61: 6.0, 62: 6.0, **END}
"""Some tokens are likely enough to come again and again."""
PENALTIES: Mapping[str, tuple[Sampling, list[Any]]] = {
    "repetition": (
        Sampling(temperature=0, repetition_penalty=1.6, logit_bias=END),
        make_logits_processors(END, repetition_penalty=1.6, repetition_context_size=ALL),
    ),
    "presence": (
        Sampling(temperature=0, presence_penalty=0.6, logit_bias=FEW),
        [
            *make_logits_processors(FEW),
            *map(
                behind_prompt,
                make_logits_processors(presence_penalty=0.6, presence_context_size=ALL),
            ),
        ],
    ),
    "frequency": (
        Sampling(temperature=0, frequency_penalty=0.4, logit_bias=FEW),
        [
            *make_logits_processors(FEW),
            *map(
                behind_prompt,
                make_logits_processors(frequency_penalty=0.4, frequency_context_size=ALL),
            ),
        ],
    ),
    "bias": (Sampling(temperature=0, logit_bias=BIAS), make_logits_processors(BIAS)),
    "all": (
        Sampling(
            temperature=0,
            repetition_penalty=1.3,
            presence_penalty=0.5,
            frequency_penalty=0.2,
            logit_bias=BIAS,
        ),
        [
            *make_logits_processors(BIAS, repetition_penalty=1.3, repetition_context_size=ALL),
            *map(
                behind_prompt,
                make_logits_processors(
                    presence_penalty=0.5,
                    presence_context_size=ALL,
                    frequency_penalty=0.2,
                    frequency_context_size=ALL,
                ),
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_the_librarys(
    open_bench: Callable[..., Bench], folders: dict[str, Path], name: str
) -> None:
    sampling, processors = PENALTIES[name]
    expected, scores = of_library(folders["text"], *processors)
    bias = make_logits_processors(FEW if name in {"presence", "frequency"} else END)
    assert expected != of_library(folders["text"], *bias)[0], "it changes something"
    bench = open_bench("text")
    request = Generate(lease="l", prompt=PROMPT, max_tokens=16, sampling=sampling, logprobs=0)
    beside = bench.ask(Generate(lease="l", prompt=PROMPT, max_tokens=30, sampling=NO_END))
    answer = bench.ask(request)
    bench.step()
    row = next(row for row in running(bench) if row.request_id == bench.id_of(answer))
    bench.run(answer, beside)
    assert row.decoded == expected
    shown = voice(answer)
    assert shown == pytest.approx(scores[: len(shown)], abs=1e-4)


def running(bench: Bench) -> list[Any]:
    return list(bench.engine._rows._running.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("bias", [{100_000_000: 5.0}, {-1: 5.0}])
def test_ids_outside_the_vocabulary_are_refused_and_others_go_on(
    open_bench: Callable[..., Bench], kind: str, bias: dict[int, float]
) -> None:
    """MLX writes them wherever they point; such a request has ended servers."""
    bench = open_bench(kind)
    beside = bench.ask(Generate(lease="l", prompt=PROMPT, max_tokens=6, sampling=NO_END))
    bench.step()
    with pytest.raises(MlxdError) as caught:
        bench.ask(Generate(lease="l", prompt=PROMPT, sampling=Sampling(logit_bias=bias)))
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "logit_bias")
    bench.run(beside)
    assert beside.done is not None
    assert beside.done.finish_reason == "length"


@pytest.mark.parametrize("kind", BUILDERS)
def test_template_variables_reach_the_template(
    open_bench: Callable[..., Bench], kind: str, folders: dict[str, Path]
) -> None:
    """As transformers renders it: with thinking, without, and with what nobody knows."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    template = folders[kind] / "chat_template.jinja"
    known = template.read_text() if template.exists() else None
    assert known is not None
    try:
        template.write_text(
            known + "{% if enable_thinking is defined and not enable_thinking %}"
            "<think></think>{% endif %}{{ tone or '' }}"
        )
        bench = open_bench(kind)
        tokenizer = AutoTokenizer.from_pretrained(str(folders[kind]))
        message = ChatMessage(role="user", parts=(TextPart("Hello."),))
        for variables in ({}, {"enable_thinking": False}, {"tone": "Dear"}):
            expected = tokenizer.apply_chat_template(
                [{"role": "user", "content": "Hello."}],
                add_generation_prompt=True,
                tokenize=False,
                **variables,
            )
            answer = alone(
                bench,
                Generate(
                    lease="l",
                    messages=(message,),
                    max_tokens=1,
                    sampling=NO_END,
                    template_kwargs=variables,
                ),
            )
            assert prompt_tokens(answer) == len(
                tokenizer(expected, add_special_tokens=False)["input_ids"]
            )
    finally:
        template.write_text(known)
