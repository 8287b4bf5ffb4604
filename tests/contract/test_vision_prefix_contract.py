"""What is kept of rows with pictures changes when an answer comes, and never what it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import daemon.models.glimpse
from daemon.wire.data import ChatMessage, Generate, ImagePart, Sampling, TextPart
from daemon.worker.engines import REGISTRY
from tests.contract.bench import NO_END, Answer, Bench, alone, begin
from tests.contract.families import build_family
from tests.contract.test_vision_families import ASK, ONE, OTHER, prompt_tokens, user, voice
from tests.contract.tiny import build_vision_model

REUSING = ("glimpse", "mistral3", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "smolvlm")
PICTURES_WHOLE = ("gemma3", "paligemma")
"""A picture's keys and values depend on what follows, or the cache forgets what lies far back."""

PLAIN_TOKENS = 8
"""More than any template writes to open an answer."""


@pytest.fixture(scope="module", params=[*REUSING, *PICTURES_WHOLE])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    if name == "glimpse":
        return Path(daemon.models.glimpse.__path__[0])
    place = tmp_path_factory.mktemp("prefix") / name
    return build_vision_model(place) if name == "qwen2_5_vl" else build_family(place, name)


@pytest.fixture(scope="module")
def reuses(folder: Path) -> bool:
    return folder.name not in PICTURES_WHOLE


@pytest.fixture
def open_bench(folder: Path) -> Iterator[Callable[..., Bench]]:
    engines = []

    def open_one(**changes: Any) -> Bench:
        engine = REGISTRY["vision"]()
        engines.append(engine)
        told = begin(folder, "vision", **changes)
        engine.load(told, lambda _done, _total: None)
        return Bench(engine, told)

    yield open_one
    for engine in engines:
        engine.close()


def asks(*messages: ChatMessage, sampling: Sampling = NO_END) -> Generate:
    return Generate(lease="l", messages=messages, max_tokens=12, sampling=sampling, logprobs=1)


def said(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", parts=(TextPart(text),))


def turns(first: ImagePart, *, then: ImagePart | None = None) -> tuple[Generate, Generate]:
    """A question about a picture, and the next one of the same conversation."""
    shown = user(first, ASK)
    later = user(TextPart("Is it red?")) if then is None else user(then, TextPart("And it?"))
    return asks(shown), asks(shown, said("A thing."), later)


def cached(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.cached_tokens


def same(answer: Answer, expected: Answer) -> None:
    assert answer.fail is None
    assert expected.fail is None
    assert answer.text == expected.text
    assert voice(answer) == pytest.approx(voice(expected), abs=1e-3)


def test_a_second_turn_computes_only_what_is_new(
    open_bench: Callable[..., Bench], *, reuses: bool
) -> None:
    cold, warm = open_bench(kv_bytes=0), open_bench()
    first, second = turns(ONE)
    begun, expected = alone(warm, first), alone(cold, second)
    answer = alone(warm, second)
    same(answer, expected)
    assert cached(begun) == cached(expected) == 0
    if reuses:
        assert cached(answer) >= prompt_tokens(begun)
    else:
        assert cached(answer) == 0


def test_another_picture_is_another_prompt(
    open_bench: Callable[..., Bench], *, reuses: bool
) -> None:
    cold, warm = open_bench(kv_bytes=0), open_bench()
    alone(warm, turns(OTHER)[0])
    first, second = turns(ONE)
    for request in (first, second, turns(OTHER)[1], first):
        same(alone(warm, request), alone(cold, request))
    fresh = open_bench()
    alone(fresh, turns(OTHER)[0])
    assert cached(alone(fresh, first)) <= (PLAIN_TOKENS if reuses else 0)


def test_a_picture_that_comes_later_is_seen(folder: Path, open_bench: Callable[..., Bench]) -> None:
    cold, warm = open_bench(kv_bytes=0), open_bench()
    first, second = turns(ONE, then=OTHER)
    alone(warm, first)
    answer = alone(warm, second)
    same(answer, alone(cold, second))
    if folder.name != "paligemma":  # mlx_vlm looks for its pictures at the prompt's beginning
        assert voice(answer) != voice(alone(warm, turns(ONE, then=ONE)[1]))


def test_warm_and_cold_rows_run_side_by_side(open_bench: Callable[..., Bench]) -> None:
    cold, warm = open_bench(kv_bytes=0), open_bench()
    alone(warm, turns(ONE)[0])
    requests = [turns(ONE)[1], turns(OTHER)[1], asks(user(TextPart("Hello."))), turns(ONE)[0]]
    together = [warm.ask(request) for request in requests]
    warm.run(*together)
    for request, answer in zip(requests, together, strict=True):
        same(answer, alone(cold, request))


def test_penalties_see_what_is_not_computed_again(open_bench: Callable[..., Bench]) -> None:
    """The library's own prefix cache hides the beginning of a prompt from processors."""
    cold, warm = open_bench(kv_bytes=0), open_bench()
    first, second = (
        Generate(
            lease="l",
            messages=request.messages,
            max_tokens=12,
            logprobs=1,
            sampling=Sampling(
                temperature=0,
                repetition_penalty=1.8,
                presence_penalty=0.7,
                logit_bias=NO_END.logit_bias,
            ),
        )
        for request in turns(ONE)
    )
    alone(warm, first)
    same(alone(warm, second), alone(cold, second))


def kept_bytes(bench: Bench) -> int:
    """What its batch keeps for later rows, caches and pictures."""
    decoder = bench.engine._rows._decoder  # type: ignore[attr-defined]
    return int(decoder._store.nbytes + decoder._memo.nbytes)


def test_what_is_kept_lies_within_the_allowance(
    open_bench: Callable[..., Bench], *, reuses: bool
) -> None:
    if not reuses:
        pytest.skip("nothing is kept of these rows")
    roomy = open_bench()
    requests = [*turns(ONE), *turns(OTHER)]
    expected = [alone(roomy, request) for request in requests]
    all_of_it = kept_bytes(roomy)
    roomy.engine.trim()
    assert kept_bytes(roomy) == 0
    assert cached(alone(roomy, requests[1])) == 0
    assert cached(alone(roomy, requests[1])) > 0
    for percent in (20, 60, 90, 97):
        bound = all_of_it * percent // 100
        small = open_bench(kv_bytes=bound)
        for request, answer in zip(requests, expected, strict=True):
            same(alone(small, request), answer)
            assert 0 < kept_bytes(small) <= bound


def keeps_rows(bench: Bench) -> bool:
    decoder = bench.engine._rows._decoder  # type: ignore[attr-defined]
    return decoder._store is not None


def test_an_answer_is_kept_with_its_prompt(open_bench: Callable[..., Bench]) -> None:
    warm = open_bench()
    prompt = tuple(range(10, 50))
    first = warm.ask(Generate(lease="l", prompt=prompt, max_tokens=9, sampling=NO_END))
    warm.step()
    (row,) = warm.engine._rows._running.values()  # type: ignore[attr-defined]
    warm.run(first)
    longer = (*prompt, *row.decoded, 17, 18)
    again = alone(warm, Generate(lease="l", prompt=longer, max_tokens=9, sampling=NO_END))
    assert len(row.decoded) == 9
    assert cached(again) == (len(longer) - 2 if keeps_rows(warm) else 0)


def test_a_cancelled_row_leaves_its_beginning(
    open_bench: Callable[..., Bench], *, reuses: bool
) -> None:
    warm = open_bench()
    first, _ = turns(ONE)
    answer = warm.ask(first)
    while not answer.deltas:
        warm.step()
    warm.engine.cancel(warm.id_of(answer))
    again = alone(warm, first)
    same(again, alone(open_bench(kv_bytes=0), first))
    assert cached(again) == (prompt_tokens(again) - 1 if reuses else 0)


def test_nothing_of_a_row_stays_with_the_batch(open_bench: Callable[..., Bench]) -> None:
    """Its embeddings are megabytes, and go when its prompt is computed; its names with it."""
    bench = open_bench()
    first, second = turns(ONE)
    finished, cancelled, waiting = bench.ask(first), bench.ask(second), bench.ask(first)
    while not cancelled.deltas:
        bench.step()
    bench.engine.cancel(bench.id_of(waiting))
    bench.engine.cancel(bench.id_of(cancelled))
    bench.run(finished)
    batch = bench.engine._rows._decoder._batch  # type: ignore[attr-defined]
    assert batch._names == batch._found == batch._generation_batch.fed == {}
