"""A cache that begins rows changes when an answer comes, and never what it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from daemon.wire.data import ChatMessage, Generate, Sampling, TextPart
from daemon.worker.engines.base import Engine
from daemon.worker.engines.text import TextEngine
from tests.contract.bench import NO_END, Answer, Bench, alone, begin
from tests.contract.tiny import build_hybrid_model, build_text_model, build_window_model

SYSTEM = "You are a careful assistant who thinks before speaking. " * 8
BUILDERS = {"plain": build_text_model, "window": build_window_model, "hybrid": build_hybrid_model}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build(root / name) for name, build in BUILDERS.items()}


@pytest.fixture(params=list(BUILDERS))
def caches(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_bench(folders: dict[str, Path], caches: str) -> Iterator[Callable[..., Bench]]:
    engines: list[Engine] = []

    def open_one(**changes: Any) -> Bench:
        engine = TextEngine()
        engines.append(engine)
        told = begin(folders[caches], "text", **changes)
        engine.load(told, lambda _done, _total: None)
        return Bench(engine, told)

    yield open_one
    for engine in engines:
        engine.close()


def turn(role: str, text: str) -> ChatMessage:
    return ChatMessage(role=role, parts=(TextPart(text),))  # type: ignore[arg-type]


def talk(*texts: str, sampling: Sampling = NO_END, max_tokens: int = 24) -> Generate:
    """A conversation of a system message and turns in alternation, user first and last."""
    roles = ("user", "assistant")
    turns = [turn(roles[i % 2], text) for i, text in enumerate(texts)]
    messages = (turn("system", SYSTEM), *turns)
    return Generate(lease="l", messages=messages, max_tokens=max_tokens, sampling=sampling)


def cached(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.cached_tokens


def prompt_tokens(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.prompt_tokens


CONVERSATIONS = (
    talk("Hello there."),
    talk("Hello there.", "General.", "And now?"),
    talk("Hello there.", "General.", "And now?", "Nothing.", "Why not?"),
    talk("Something else."),
    talk("Hello there.", "General.", "But then?"),
)


def test_answers_are_those_without_a_cache(open_bench: Callable[..., Bench]) -> None:
    plain, caching = open_bench(kv_bytes=0), open_bench()
    for _ in range(2):
        for request in CONVERSATIONS:
            expected, answer = alone(plain, request), alone(caching, request)
            assert answer.text == expected.text != ""
            assert cached(expected) == 0
    again = alone(caching, CONVERSATIONS[1])
    assert cached(again) > prompt_tokens(again) - 30, "only the opening of the answer is new"


def test_a_trim_forgets_what_was_kept_and_no_answer_that_is_under_way(
    open_bench: Callable[..., Bench],
) -> None:
    bench, held = open_bench(), CONVERSATIONS[1]
    first = alone(bench, held)
    assert cached(alone(bench, held)) > 0
    bench.engine.trim()
    again = bench.ask(held)
    bench.step()
    bench.step()
    bench.engine.trim()
    bench.run(again)
    assert (again.text, cached(again)) == (first.text, 0)


def test_answers_together_are_those_without_a_cache(open_bench: Callable[..., Bench]) -> None:
    plain, caching = open_bench(kv_bytes=0), open_bench()
    expected = [alone(plain, request).text for request in CONVERSATIONS]
    alone(caching, CONVERSATIONS[0])
    alone(caching, CONVERSATIONS[1])
    together = [caching.ask(request) for request in CONVERSATIONS]
    caching.run(*together)
    assert [answer.text for answer in together] == expected
    assert cached(together[0]) > 0
    assert cached(together[1]) > 0


def test_the_next_turn_begins_behind_prompt_and_answer(open_bench: Callable[..., Bench]) -> None:
    """Raw tokens: random weights write text that would be tokenised in another way."""
    bench, plain = open_bench(), open_bench(kv_bytes=0)
    prompt = tuple(range(11, 11 + 200))
    first = bench.ask(Generate(lease="l", prompt=prompt, max_tokens=30, sampling=NO_END))
    rows = bench.engine._rows  # type: ignore[attr-defined]
    bench.step()
    (row,) = rows._running.values()
    bench.run(first)
    follow = (*prompt, *row.decoded, 40, 41, 42)
    second = Generate(lease="l", prompt=follow, max_tokens=20, sampling=NO_END)
    answer = alone(bench, second)
    assert cached(answer) == len(prompt) + 30
    assert answer.text == alone(plain, second).text


def test_a_cancelled_row_leaves_what_it_computed(open_bench: Callable[..., Bench]) -> None:
    bench, plain = open_bench(), open_bench(kv_bytes=0)
    prompt = tuple(range(11, 111))
    dropped = bench.ask(Generate(lease="l", prompt=prompt, max_tokens=200, sampling=NO_END))
    rows = bench.engine._rows  # type: ignore[attr-defined]
    bench.step()
    (row,) = rows._running.values()
    while len(row.decoded) < 9:
        bench.step()
    bench.engine.cancel(bench.id_of(dropped))
    follow = Generate(
        lease="l", prompt=(*prompt, *row.decoded, 40, 41), max_tokens=20, sampling=NO_END
    )
    answer = alone(bench, follow)
    assert cached(answer) == len(prompt) + 9
    assert answer.text == alone(plain, follow).text


@pytest.mark.parametrize("caches", ["plain"])
def test_a_second_request_need_not_wait_for_the_first_answer(
    open_bench: Callable[..., Bench],
) -> None:
    bench = open_bench()
    first = bench.ask(talk("Hello there.", max_tokens=200))
    while not first.deltas:
        bench.step()
    second = alone(bench, talk("Hello there."))
    assert not first.ended
    assert cached(second) == prompt_tokens(second) - 1


def test_requests_that_come_together_compute_their_beginning_once(
    open_bench: Callable[..., Bench],
) -> None:
    bench, plain = open_bench(), open_bench(kv_bytes=0)
    drawn = [Sampling(temperature=1.0, seed=seed) for seed in range(3)]
    requests = [talk("Hello there.", sampling=sampling) for sampling in drawn]
    expected = [alone(plain, request).text for request in requests]
    answers = [bench.ask(request) for request in requests]
    other = bench.ask(Generate(lease="l", prompt=(20, 21), max_tokens=1, sampling=NO_END))
    bench.run(other)
    assert not answers[1].deltas, "the one with another beginning does not wait with them"
    bench.run(*answers)
    assert [answer.text for answer in answers] == expected
    assert cached(answers[0]) == 0
    assert all(cached(answer) > prompt_tokens(answer) - 30 for answer in answers[1:])


@pytest.mark.parametrize("caches", ["plain"])
def test_a_common_beginning_is_shared_to_the_token(open_bench: Callable[..., Bench]) -> None:
    bench = open_bench()
    shared = tuple(range(11, 111))
    for i, rest in enumerate(((20, 21, 22), (20, 21, 30), (20, 40))):
        request = Generate(lease="l", prompt=(*shared, *rest), max_tokens=2, sampling=NO_END)
        assert cached(alone(bench, request)) == (0, 102, 101)[i]


def test_kept_caches_stay_within_their_bound(open_bench: Callable[..., Bench], caches: str) -> None:
    bytes_max = 300_000 if caches == "plain" else 900_000
    bench = open_bench(kv_bytes=bytes_max)
    store = bench.engine._rows._decoder._store  # type: ignore[attr-defined]
    sizes = []
    for i in range(12):
        alone(bench, talk(f"Question number {i} of many, {'and so on ' * i}", max_tokens=4))
        sizes.append(store.nbytes)
    assert max(sizes) <= bytes_max
    assert sizes[-1] > bytes_max / 3, "the bound is used"
    repeated = alone(bench, talk(f"Question number 11 of many, {'and so on ' * 11}", max_tokens=4))
    assert cached(repeated) > 0, "the newest one is still there"


@pytest.mark.parametrize("caches", ["plain"])
def test_rows_and_what_is_kept_share_the_allowance(open_bench: Callable[..., Bench]) -> None:
    """What is held is counted array by array, and MLX's own count agrees."""
    probe = open_bench()
    alone(probe, Generate(lease="l", prompt=(20,) * 99, max_tokens=1, sampling=NO_END))
    token_bytes = _store(probe).nbytes // 100
    allowance = 2048 * token_bytes
    bench = open_bench(kv_tokens=2048, kv_bytes=allowance)
    loaded_bytes = mx.get_active_memory()
    for i in range(8):
        prompts = [(20 + i, 30 + row, *[40 + n % 200 for n in range(300)]) for row in range(4)]
        answers = [
            bench.ask(Generate(lease="l", prompt=prompt, max_tokens=16, sampling=NO_END))
            for prompt in prompts
        ]
        while not all(answer.ended for answer in answers):
            bench.step()
            batch = bench.engine._rows._decoder._batch  # type: ignore[attr-defined]
            assert _store(bench).nbytes + batch.prompt_cache_nbytes <= allowance
    assert _store(bench).nbytes > allowance / 3, "what rows leave is used"
    assert mx.get_active_memory() - loaded_bytes <= allowance + (1 << 20)
    assert mx.get_cache_memory() <= bench.begin.cache_bytes_max


@pytest.mark.parametrize("caches", ["plain"])
def test_the_next_worker_goes_on_where_the_last_one_ended(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    disk = {"prefix_dir": str(tmp_path), "prefix_disk_bytes": 1 << 24, "identity": "a"}
    plain, first = open_bench(kv_bytes=0), open_bench(**disk)
    expected = [alone(plain, request).text for request in CONVERSATIONS]
    for request in CONVERSATIONS[:2]:
        alone(first, request)
    while first.engine.put_away():
        continue
    second = open_bench(**disk)
    for request, text in zip(CONVERSATIONS, expected, strict=True):
        answer = alone(second, request)
        assert answer.text == text
        assert cached(answer) >= 256, "the system message, read from disk"
    changed = open_bench(**{**disk, "identity": "b"})
    assert cached(alone(changed, CONVERSATIONS[0])) == 0


def _store(bench: Bench) -> Any:
    return bench.engine._rows._decoder._store  # type: ignore[attr-defined]
