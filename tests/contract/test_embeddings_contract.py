"""Embeddings against an oracle of their own, and the files' word on what is done to them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from daemon.wire.data import CountTokens, Done, Embed, Generate
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import Engine, LoadRefused
from tests.contract.bench import begin
from tests.contract.jobs import JobBench, Result
from tests.contract.numpy_bert import Bert, unit
from tests.contract.tiny import build_embedding_model
from tests.models import model_path

TEXTS = ("hello", "a cat sat on the mat.", "x", "the same length as none of the others", "b c d e")


def vectors(result: Result) -> list[Any]:
    assert isinstance(result.end, Done), result.end
    return [np.frombuffer(raw, "<f4") for frame in result.frames for raw in frame.vectors]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., tuple[JobBench, Path]]]:
    engines: list[Engine] = []

    def open_one(folder: Path | None = None, **changes: Any) -> tuple[JobBench, Path]:
        folder = folder or build_embedding_model(tmp_path / f"m{len(engines)}", **changes)
        engine = REGISTRY["embeddings"]()
        engines.append(engine)
        seen: list[tuple[int, int]] = []
        engine.load(begin(folder, "embeddings"), lambda *done: seen.append(done))
        assert seen[0][0] == 0
        assert seen[-1][0] == seen[-1][1] > 0
        return JobBench(engine), folder

    yield open_one
    for engine in engines:
        engine.close()


def ids_of(folder: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return list(tokenizer.encode(text).ids)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("pooling_mode_mean_tokens", lambda states: states.mean(0)),
        ("pooling_mode_cls_token", lambda states: states[0]),
        ("pooling_mode_max_tokens", lambda states: states.max(0)),
        ("pooling_mode_lasttoken", lambda states: states[-1]),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_the_oracles(
    open_bench: Callable[..., Any], pooling: str, pool: Callable[[Any], Any], *, normalize: bool
) -> None:
    bench, folder = open_bench(pooling=pooling, normalize=normalize, tokens_max=64)
    oracle = Bert(folder)
    found = vectors(bench.whole(Embed(lease="l", inputs=TEXTS)))
    for text, vector in zip(TEXTS, found, strict=True):
        assert len(vector) == 32
        expected = pool(oracle.hidden(ids_of(folder, text)))
        np.testing.assert_allclose(vector, unit(expected) if normalize else expected, atol=1e-5)


def test_usage_is_exact_and_long_texts_are_cut(open_bench: Callable[..., Any]) -> None:
    bench, folder = open_bench(tokens_max=10)
    result = bench.whole(Embed(lease="l", inputs=("abc", "a" * 50)))
    assert result.usage is not None
    assert result.usage.prompt_tokens == 5 + 10
    expected = unit(Bert(folder).hidden([1, *[4] * 8, 2]).mean(0))
    np.testing.assert_allclose(vectors(result)[1], expected, atol=1e-5)


def test_tokens_are_taken_as_they_are(open_bench: Callable[..., Any]) -> None:
    bench, folder = open_bench()
    text, tokens = vectors(
        bench.whole(Embed(lease="l", inputs=("hello", tuple(ids_of(folder, "hello")))))
    )
    np.testing.assert_array_equal(text, tokens)


def test_fewer_dimensions_come_back_to_length_one(open_bench: Callable[..., Any]) -> None:
    bench, _ = open_bench()
    (whole,) = vectors(bench.whole(Embed(lease="l", inputs=("hello",))))
    (short,) = vectors(bench.whole(Embed(lease="l", inputs=("hello",), dimensions=8)))
    np.testing.assert_allclose(short, unit(whole[:8].astype(np.float64)), atol=1e-6)


def test_many_inputs_keep_their_order_and_let_others_through(
    open_bench: Callable[..., Any],
) -> None:
    bench, _ = open_bench(tokens_max=64)
    texts = tuple("ab " * (1 + i * 7 % 19) + "abcdefgh"[i % 8] for i in range(300))
    alone = [vectors(bench.whole(Embed(lease="l", inputs=(text,))))[0] for text in texts[:20]]
    long, short = (
        bench.ask(Embed(lease="l", inputs=texts)),
        bench.ask(Embed(lease="l", inputs=("x",))),
    )
    bench.run(short)
    assert long.end is None, "a short request does not wait for a long one's end"
    bench.run(long)
    found = vectors(long)
    assert len(found) == 300
    np.testing.assert_allclose(found[:20], alone, atol=1e-5)


def test_a_cancelled_request_is_gone(open_bench: Callable[..., Any]) -> None:
    bench, _ = open_bench()
    bench.ask(Embed(lease="l", inputs=TEXTS))
    bench.step()
    assert bench.engine.cancel(1) is not None
    assert not bench.engine.busy
    assert bench.engine.cancel(1) is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Embed(lease="l", inputs=()), "inputs"),
        (Embed(lease="l", inputs=("a", "")), "inputs[1]"),
        (Embed(lease="l", inputs=((5, 10_000),)), "inputs[0]"),
        (Embed(lease="l", inputs=((5,) * 33,)), "inputs[0]"),
        (Embed(lease="l", inputs=("a",), dimensions=33), "dimensions"),
        (Embed(lease="l", inputs=("a",), dimensions=0), "dimensions"),
        (Generate(lease="l", prompt="x"), "model"),
    ],
)
def test_refusals_name_the_field(
    open_bench: Callable[..., Any], request_: Embed, field: str
) -> None:
    bench, _ = open_bench()
    with pytest.raises(MlxdError) as caught:
        bench.engine.submit(1, request_)
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)
    assert not bench.engine.busy


def test_there_is_nothing_to_count(open_bench: Callable[..., Any]) -> None:
    bench, _ = open_bench()
    with pytest.raises(MlxdError, match="text or vision"):
        bench.engine.count(CountTokens(lease="l", messages=()))


def test_a_step_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = build_embedding_model(tmp_path / "m")
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.LSTM"}]')
    with pytest.raises(LoadRefused, match="LSTM"):
        REGISTRY["embeddings"]().load(begin(folder, "embeddings"), lambda *_: None)


@pytest.mark.slow
def test_minilm_is_the_oracles(open_bench: Callable[..., Any]) -> None:
    folder = model_path("all-MiniLM-L6-v2")
    bench, _ = open_bench(folder)
    oracle = Bert(folder)
    texts = ("The weather is lovely today.", "It's so sunny outside!", "Zürich", "cat " * 400)
    found = vectors(bench.whole(Embed(lease="l", inputs=texts)))
    for text, vector in zip(texts, found, strict=True):
        ids = ids_of(folder, text)
        if len(ids) > 256:
            ids = [*ids[:255], ids[-1]]
        np.testing.assert_allclose(vector, unit(oracle.hidden(ids).mean(0)), atol=1e-5)
