"""What every engine must do, asserted once for the fake one and the real ones."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from daemon.wire.data import (
    ChatMessage,
    Generate,
    ImagePart,
    Sampling,
    TextPart,
)
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import Engine, LoadCancelled, LoadRefused
from tests.contract.bench import NO_END, PROMPTS, Answer, Bench, alone, ask, begin
from tests.contract.tiny import build_text_model, build_vision_model
from tests.fakes.engine import FakeConfig, FakeEngine, write_fake_model

KINDS = ("fake", "text", "vision")
REPLY = "the quick brown fox jumps over the lazy dog and never comes back, "


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "fake": write_fake_model(root / "fake", FakeConfig(reply=REPLY)),
        "text": build_text_model(root / "text"),
        "vision": build_vision_model(root / "vision"),
    }


def make(kind: str) -> Engine:
    return FakeEngine() if kind == "fake" else REGISTRY[kind]()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_bench(folders: dict[str, Path], kind: str) -> Iterator[Callable[..., Bench]]:
    engines: list[Engine] = []

    def open_one(**changes: int) -> Bench:
        engine = make(kind)
        engines.append(engine)
        told = begin(folders[kind], kind, **changes)
        engine.load(told, lambda _done, _total: None)
        return Bench(engine, told)

    yield open_one
    for engine in engines:
        engine.close()


@pytest.fixture
def bench(open_bench: Callable[..., Bench]) -> Bench:
    return open_bench()


# --- loading -------------------------------------------------------------------


def test_progress_is_monotonic_and_complete(folders: dict[str, Path], kind: str) -> None:
    engine, seen = make(kind), list[tuple[int, int]]()
    engine.load(begin(folders[kind], kind), lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)
    assert engine.memory_bytes() >= seen[-1][1]
    engine.close()


def test_loading_can_be_cancelled_from_progress(folders: dict[str, Path], kind: str) -> None:
    engine = make(kind)

    def stop(_done: int, _total: int) -> None:
        raise LoadCancelled

    with pytest.raises(LoadCancelled):
        engine.load(begin(folders[kind], kind), stop)
    engine.close()


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_broken_folder_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    engine = make(kind)
    with pytest.raises(LoadRefused, match=r"config\.json") as caught:
        engine.load(begin(tmp_path, kind), lambda _done, _total: None)
    assert caught.value.reason == "incompatible"
    engine.close()


def test_context_is_bounded_by_the_allowance(folders: dict[str, Path], kind: str) -> None:
    engine = make(kind)
    told = begin(folders[kind], kind, kv_tokens=512, context_tokens=2048)
    assert engine.load(told, lambda _done, _total: None).context_tokens == 512
    engine.close()


# --- answers ---------------------------------------------------------------------


def test_max_tokens_gives_length_and_true_usage(bench: Bench) -> None:
    request = ask(max_tokens=9)
    prompt_tokens = bench.engine.submit(77, request)
    answer = bench.answers[77] = Answer()
    bench.run(answer)
    assert answer.done is not None
    assert answer.done.finish_reason == "length"
    assert answer.done.usage.completion_tokens == 9
    assert answer.done.usage.prompt_tokens == prompt_tokens > 0
    assert answer.usage == answer.done.usage
    assert answer.deltas[-1].tokens == 9


def test_the_same_question_gets_the_same_greedy_answer(bench: Bench) -> None:
    assert alone(bench, ask()).text == alone(bench, ask()).text != ""


def test_streams_more_than_one_delta(bench: Bench) -> None:
    assert len(alone(bench, ask()).deltas) > 4


def test_concurrent_answers_equal_those_alone(bench: Bench) -> None:
    expected = [alone(bench, ask(prompt)).text for prompt in PROMPTS]
    together = [bench.ask(ask(prompt)) for prompt in PROMPTS]
    bench.run(*together)
    assert [answer.text for answer in together] == expected


def test_a_late_joiner_starts_while_others_run_and_changes_nothing(bench: Bench) -> None:
    first_alone, second_alone = alone(bench, ask(max_tokens=60)), alone(bench, ask("Ping"))
    first = bench.ask(ask(max_tokens=60))
    while len(first.deltas) < 5:
        bench.step()
    second = bench.ask(ask("Ping"))
    bench.run(second)
    assert not first.ended, "the second one ran beside the first"
    bench.run(first)
    assert (first.text, second.text) == (first_alone.text, second_alone.text)


def test_cancel_frees_the_row_before_the_next_step(bench: Bench) -> None:
    kept, dropped = bench.ask(ask(max_tokens=40)), bench.ask(ask("Ping", max_tokens=1000))
    while not (kept.deltas and dropped.deltas):
        bench.step()
    usage = bench.engine.cancel(bench.id_of(dropped))
    assert usage is not None
    assert 0 < usage.completion_tokens < 1000
    before = len(dropped.deltas)
    bench.run(kept)
    assert len(dropped.deltas) == before
    assert not dropped.ended
    assert not bench.engine.busy
    assert bench.engine.cancel(bench.id_of(dropped)) is None
    assert kept.text == alone(bench, ask(max_tokens=40)).text


def test_a_cancelled_row_is_decoded_no_more(bench: Bench) -> None:
    """Looked at below the rows, where a row that was only forgotten would go on."""
    kept, dropped = bench.ask(ask(max_tokens=40)), bench.ask(ask("Ping", max_tokens=40))
    while not (kept.deltas and dropped.deltas):
        bench.step()
    bench.engine.cancel(bench.id_of(dropped))
    rows = bench.engine._rows  # type: ignore[attr-defined]
    assert [token.uid for token in rows._decoder.next()] == list(rows._running)


def test_cancel_before_the_first_step(bench: Bench) -> None:
    bench.engine.cancel(bench.id_of(bench.ask(ask())))
    assert not bench.engine.busy
    assert bench.engine.step() == []


def test_cancel_in_the_middle_of_a_long_prefill(bench: Bench) -> None:
    long = bench.ask(ask("word " * 300, max_tokens=4))
    bench.step()
    bench.engine.cancel(bench.id_of(long))
    assert not bench.engine.busy
    assert alone(bench, ask()).text


def test_the_stop_text_ends_the_answer_and_never_leaks(bench: Bench) -> None:
    whole = alone(bench, ask(max_tokens=40)).text
    stop = whole[11:14]
    answer = alone(bench, ask(max_tokens=40, stop=(stop, "never in there")))
    assert answer.done is not None
    assert (answer.done.finish_reason, answer.done.stop_text) == ("stop", stop)
    assert answer.text == whole[: whole.index(stop)]
    assert answer.done.usage.completion_tokens < 40
    assert not bench.engine.busy, "the row is out of the batch"


def test_what_could_have_become_a_stop_text_is_not_lost(bench: Bench) -> None:
    whole = alone(bench, ask(max_tokens=20)).text
    answer = alone(bench, ask(max_tokens=20, stop=(whole[-3:] + "\0impossible",)))
    assert answer.text == whole


# --- sampling --------------------------------------------------------------------


def test_a_seed_repeats_whoever_is_beside(bench: Bench) -> None:
    def sampled(seed: int) -> Generate:
        return ask(max_tokens=16, sampling=Sampling(temperature=1.5, seed=seed))

    expected = alone(bench, sampled(1)).text
    assert alone(bench, sampled(2)).text != expected
    greedy_expected = alone(bench, ask()).text
    together = [bench.ask(r) for r in (ask(), sampled(2), sampled(1), sampled(3))]
    bench.run(*together)
    assert together[2].text == expected
    assert together[0].text == greedy_expected, "a greedy row stays greedy beside sampled ones"


# --- refusals and failures ----------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ask(max_tokens=0), "max_tokens"),
        (ask(max_tokens=100_000), "max_tokens"),
        (ask("x" * 3000, max_tokens=None), "messages"),
        (ask(logprobs=21), "logprobs"),
        (Generate(lease="l"), "messages"),
        (Generate(lease="l", messages=()), "messages"),
        (Generate(lease="l", prompt="", max_tokens=1), "prompt"),
        (ask(template_kwargs={"tokenize": False}), "template_kwargs"),
    ],
)
def test_impossible_requests_are_refused_by_field(
    bench: Bench, request_: Generate, field: str
) -> None:
    running = bench.ask(ask())
    with pytest.raises(MlxdError) as caught:
        bench.engine.submit(99, request_)
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)
    bench.run(running)
    assert running.done is not None
    assert not bench.engine.busy


def test_without_max_tokens_the_answer_ends_with_the_context(
    open_bench: Callable[..., Bench],
) -> None:
    bench = open_bench(context_tokens=150)
    answer = alone(bench, ask("Go", max_tokens=None, sampling=NO_END))
    assert answer.done is not None
    usage = answer.done.usage
    assert answer.done.finish_reason == "length"
    assert usage.prompt_tokens + usage.completion_tokens == 150


def test_rows_beyond_rows_max_wait_their_turn(open_bench: Callable[..., Bench]) -> None:
    bench = open_bench(rows_max=2)
    answers = [bench.ask(ask(prompt, max_tokens=6)) for prompt in PROMPTS]
    bench.run(answers[0])
    assert not answers[3].ended
    bench.run()
    assert all(answer.done is not None for answer in answers)


def test_rows_that_outgrow_the_allowance_are_put_back_and_end(
    open_bench: Callable[..., Bench],
) -> None:
    """Two rows of 512 tokens fit 1024; as both grow past that, the younger must make room."""
    narrow = open_bench(kv_tokens=1024, context_tokens=1024)
    wide = open_bench(kv_tokens=4096, context_tokens=1024)
    drawn = msgspec.structs.replace(NO_END, temperature=1.0, seed=5)
    requests = [
        ask(prompt.ljust(200, "."), max_tokens=320, sampling=sampling)
        for prompt, sampling in zip(PROMPTS, (NO_END, drawn), strict=False)
    ]
    expected = [alone(wide, request) for request in requests]
    older, younger = (narrow.ask(request) for request in requests)
    narrow.run(older)
    assert 200 < younger.deltas[-1].tokens < 320, "it ran beside the older one, then made room"
    narrow.run(younger)
    assert (older.text, younger.text) == (expected[0].text, expected[1].text)
    assert younger.usage is not None
    assert younger.usage.completion_tokens == 320


# --- pictures ------------------------------------------------------------------------


def picture(color: str, size: tuple[int, int] = (32, 32)) -> ImagePart:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return ImagePart(buffer.getvalue())


def with_pictures(*parts: TextPart | ImagePart) -> Generate:
    return Generate(
        lease="l",
        messages=(ChatMessage(role="user", parts=parts),),
        max_tokens=12,
        sampling=Sampling(temperature=0),
    )


@pytest.mark.parametrize("kind", ["fake", "text"])
def test_a_text_model_refuses_pictures_by_place(bench: Bench) -> None:
    with pytest.raises(MlxdError, match="vision model") as caught:
        bench.engine.submit(1, with_pictures(TextPart("What?"), picture("red")))
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "messages[0].content[1]"


@pytest.mark.parametrize("kind", ["vision"])
def test_pictures_are_seen_in_their_order_alone_and_together(bench: Bench) -> None:
    red, blue, text = picture("red"), picture("blue", (48, 32)), TextPart("Compare.")
    requests = [
        with_pictures(red, text),
        with_pictures(blue, text),
        with_pictures(red, blue, text),
        with_pictures(blue, red, text),
        with_pictures(red, text, blue),
        with_pictures(text),
    ]
    expected = [alone(bench, request).text for request in requests]
    assert len(set(expected)) == len(requests), "order, place and content all matter"
    together = [bench.ask(request) for request in requests]
    bench.run(*together)
    assert [answer.text for answer in together] == expected


@pytest.mark.parametrize("kind", ["vision"])
def test_pictures_of_earlier_turns_are_not_encoded_again(
    open_bench: Callable[..., Bench],
) -> None:
    plain, remembering = open_bench(kv_bytes=0), open_bench()
    red, blue, text = picture("red"), picture("blue"), TextPart("Compare.")
    requests = [
        with_pictures(red, text),
        with_pictures(blue, text),
        with_pictures(red, text, TextPart("And now?")),
        with_pictures(red, text),
    ]
    tower = remembering.engine._generator._model.vision_tower  # type: ignore[attr-defined]
    answers = [alone(remembering, request).text for request in requests]
    assert tower.hits == 2
    assert answers == [alone(plain, request).text for request in requests]
    assert answers[0] == answers[3] != answers[2]


@pytest.mark.parametrize("kind", ["vision"])
def test_a_row_with_pictures_that_is_put_back_sees_them_again(
    open_bench: Callable[..., Bench],
) -> None:
    narrow = open_bench(kv_tokens=1024, context_tokens=1024, kv_bytes=0)
    wide = open_bench(kv_tokens=4096, context_tokens=1024, kv_bytes=0)
    requests = [
        msgspec.structs.replace(
            with_pictures(picture(color, (64, 48)), TextPart("Compare.".ljust(150, "."))),
            max_tokens=320,
            sampling=NO_END,
        )
        for color in ("red", "blue")
    ]
    expected = [alone(wide, request).text for request in requests]
    assert expected[0] != expected[1]
    older, younger = (narrow.ask(request) for request in requests)
    narrow.run(older)
    assert 200 < younger.deltas[-1].tokens < 320, "it ran beside the older one, then made room"
    narrow.run(younger)
    assert [older.text, younger.text] == expected


@pytest.mark.parametrize("kind", ["vision"])
def test_marks_typed_by_a_user_are_refused(bench: Bench) -> None:
    with pytest.raises(MlxdError, match="image_pad"):
        bench.engine.submit(1, with_pictures(TextPart("<|image_pad|>")))


def test_closing_frees_and_forgets(bench: Bench) -> None:
    bench.ask(ask())
    bench.step()
    bench.engine.close()
    assert not bench.engine.busy
