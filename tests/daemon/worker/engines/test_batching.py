"""The text decoder on a tiny model: how much of a prompt a step takes, and what is kept."""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import load as lm_load

from daemon.wire.data import Generate, Sampling
from daemon.worker.engines.batching import PREFILL_ROWS, TextDecoder, TextInputs
from daemon.worker.engines.constraint import Vocabulary
from daemon.worker.engines.drawing import make_drawing
from daemon.worker.engines.output import TextOutput
from daemon.worker.engines.pace import CHUNK_TOKENS_MAX, CHUNK_TOKENS_MIN, CHUNK_TOKENS_UNKNOWN
from daemon.worker.engines.rows import Row, RowFailed, Token
from daemon.worker.engines.splitting import Markers, Splitter
from tests.contract.tiny import SPECIAL, build_text_model

VOCABULARY = len(SPECIAL) + 256


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    model, tokenizer = lm_load(str(build_text_model(tmp_path_factory.mktemp("m"))))[:2]
    return model, tokenizer


@pytest.fixture
def open_decoder(loaded: tuple[Any, Any]) -> Iterator[Callable[..., TextDecoder]]:
    made: list[TextDecoder] = []

    def open_one(now_s: Callable[[], float] = lambda: 0.0, bytes_max: int = 1 << 24) -> TextDecoder:
        made.append(TextDecoder(loaded[0], [], 8, bytes_max, now_s))
        return made[-1]

    yield open_one
    for decoder in made:
        decoder.close()


def row(loaded: tuple[Any, Any], prompt: list[int], tokens_max: int = 100) -> Row:
    asked = Generate(lease="l", prompt=tuple(prompt), sampling=Sampling(temperature=0))
    tokenizer = loaded[1]
    drawing = make_drawing(asked, prompt, tokenizer, {}, Vocabulary(tokenizer, VOCABULARY))
    output = TextOutput(tokenizer.detokenizer, Splitter(Markers(), ()))
    return Row(prompt=prompt, tokens_max=tokens_max, output=output, extra=TextInputs(drawing))


def computed(decoder: TextDecoder) -> int:
    return decoder._batch.prompt_tokens


def test_a_prompt_alone_is_computed_in_large_chunks(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    decoder = open_decoder()
    decoder.insert(row(loaded, [20] * 1400))
    sizes: list[int] = []
    while not decoder.next():
        sizes.append(computed(decoder) - sum(sizes))
    assert sizes[:2] == [CHUNK_TOKENS_MAX] * 2
    assert max(sizes) == CHUNK_TOKENS_MAX


def test_prompts_that_come_together_share_a_chunk(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    decoder = open_decoder(bytes_max=0)
    for token in range(4):
        decoder.insert(row(loaded, [20 + token] * 700))
    decoder.next()
    assert computed(decoder) == CHUNK_TOKENS_MAX


def test_beside_a_slow_stream_chunks_become_small(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    """On this clock a step takes 10 ms, and so does each token of a prompt."""
    steps = iter(range(10_000))
    decoder: TextDecoder = open_decoder(lambda: 0.005 * next(steps) + 0.01 * computed(decoder))
    stream = decoder.insert(row(loaded, [20] * 10, 300))
    while not decoder.next():
        continue
    for _ in range(3):
        decoder.next()
    decoder.insert(row(loaded, [30] * 800))
    sizes: list[int] = []
    decoded = 0
    while computed(decoder) < 800:
        before = computed(decoder)
        decoded += sum(token.uid == stream for token in decoder.next())
        sizes.append(computed(decoder) - before)
    assert decoded == len(sizes), "the stream gets a token in every step"
    assert set(sizes[1:-1]) == {CHUNK_TOKENS_MIN}


def test_a_row_that_cannot_go_on_is_taken_out_alone(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    decoder = open_decoder()
    bad, good = row(loaded, [20] * 5), row(loaded, [21] * 5)
    bad_uid, good_uid = decoder.insert(bad), decoder.insert(good)

    class Broken:
        error = "the grammar broke"

        def __call__(self, _tokens: mx.array, logits: mx.array) -> mx.array:
            return logits

    bad.extra.drawing._guard = Broken()
    seen: list[Token | RowFailed] = []
    while len(seen) < 6:
        seen += decoder.next()
    (failed,) = [one for one in seen if isinstance(one, RowFailed)]
    assert failed.uid == bad_uid
    assert "the grammar broke" in str(failed.error)
    assert all(one.uid == good_uid for one in seen[2:])


def test_a_prompt_is_kept_at_its_end_and_only_if_it_is_long(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    for length, expected in ((400, 399), (100, 0)):
        decoder = open_decoder()
        decoder.insert(row(loaded, [20] * length))
        while not decoder.next():
            continue
        again = row(loaded, [20] * length)
        decoder.insert(again)
        assert again.cached == expected


def test_a_row_that_was_lent_comes_back_before_the_prompts_of_newcomers(
    loaded: tuple[Any, Any], open_decoder: Callable[..., TextDecoder]
) -> None:
    decoder, undisturbed = open_decoder(), open_decoder()
    one, same = row(loaded, [20] * 10), row(loaded, [20] * 10)
    uid = decoder.insert(one)
    undisturbed.insert(same)
    expected = [token for _ in range(12) for token in undisturbed.next()]
    got: list[Token | RowFailed] = []
    while len(got) < 4:
        got += decoder.next()
    assert decoder.alone == (uid, one)
    cache = decoder.lend(uid)
    assert decoder.empty
    for entry in cache:
        entry.trim(1)
    for token in range(PREFILL_ROWS):
        decoder.insert(row(loaded, [30 + token] * 800))
    before = computed(decoder)
    content = [*one.prompt, *(token.token for token in got if isinstance(token, Token))]
    decoder.rejoin(uid, one, cache, content)
    assert decoder.next() == []
    assert computed(decoder) - before <= CHUNK_TOKENS_UNKNOWN, "as beside any stream"
    got += [token for _ in range(4) for token in decoder.next() if token.uid == uid]
    assert got == expected[: len(got)]
    assert len(got) == 8
