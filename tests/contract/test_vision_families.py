"""Vision families other than the bundled model's: pictures are marked, counted and seen."""

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import ref

import mlx.core as mx
import pytest
from mlx_lm.tokenizer_utils import PreTrainedTokenizerFast
from PIL import Image

from daemon.models.inspect import inspect_folder
from daemon.wire.data import ChatMessage, Generate, ImagePart, TextPart
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.images import decode_images
from daemon.worker.engines.visionpictures import PictureLine
from tests.contract.bench import NO_END, Answer, Bench, alone, begin
from tests.contract.families import FAMILIES, build_family

SIZE = (48, 64)


def picture(seed: int) -> ImagePart:
    """Noise, so that no two pictures look alike to any tower."""
    pixels = random.Random(seed).randbytes(3 * SIZE[0] * SIZE[1])
    file = io.BytesIO()
    Image.frombytes("RGB", SIZE, pixels).save(file, "PNG")
    return ImagePart(file.getvalue())


ONE, OTHER = picture(1), picture(2)
ASK = TextPart("What is it?")


def user(*parts: ImagePart | TextPart) -> ChatMessage:
    return ChatMessage(role="user", parts=parts)


def asks(*messages: ChatMessage) -> Generate:
    return Generate(lease="l", messages=messages, max_tokens=8, sampling=NO_END, logprobs=1)


def voice(answer: Answer) -> list[float]:
    """How sure the model was of each token: random weights often choose the same ones."""
    deltas = answer.deltas
    return [entry.logprob for delta in deltas for entry in delta.logprobs or ()]


def prompt_tokens(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.prompt_tokens


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = str(request.param)
    return build_family(tmp_path_factory.mktemp("families") / name, name)


@pytest.fixture(scope="module")
def open_bench(folder: Path) -> Iterator[Callable[[], Bench]]:
    engine = REGISTRY["vision"]()
    told = begin(folder, "vision")
    engine.load(told, lambda _done, _total: None)
    yield lambda: Bench(engine, told)
    engine.close()


def test_its_files_say_that_it_sees(folder: Path) -> None:
    assert inspect_folder(folder).kind == "vision"


def test_the_tokenizer_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[type] = []
    read = PreTrainedTokenizerFast.from_pretrained.__func__

    def counted(cls: type, *given: Any, **more: Any) -> Any:
        reads.append(cls)
        return read(cls, *given, **more)

    monkeypatch.setattr(PreTrainedTokenizerFast, "from_pretrained", classmethod(counted))
    engine = REGISTRY["vision"]()
    engine.load(begin(folder, "vision"), lambda _done, _total: None)
    engine.close()
    assert len(reads) == 1


def test_pictures_are_seen_and_counted(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()
    words = alone(bench, asks(user(ASK)))
    one = alone(bench, asks(user(ONE, ASK)))
    other = alone(bench, asks(user(OTHER, ASK)))
    two = alone(bench, asks(user(ONE, TextPart("and"), OTHER, ASK)))
    assert len({tuple(voice(answer)) for answer in (one, other, words)}) == 3, (
        "what is seen changes the answer"
    )
    taken = prompt_tokens(one) - prompt_tokens(words)
    assert taken == prompt_tokens(other) - prompt_tokens(words)
    assert taken >= 4
    both = prompt_tokens(two) - prompt_tokens(words) - len("and")
    assert 2 * taken - 2 <= both <= 2 * taken, "some write two tokens around all pictures"


def test_pictures_that_another_thread_decoded_are_the_same(
    open_bench: Callable[[], Bench],
) -> None:
    bench = open_bench()
    request = asks(user(ONE, TextPart("and"), OTHER, ASK))
    work = bench.engine.ahead(request)
    assert work is not None
    with ThreadPoolExecutor(1) as thread:
        prepared = thread.submit(work).result()
    assert isinstance(prepared, Generate)
    one, other = alone(bench, prepared), alone(bench, request)
    assert (voice(one), prompt_tokens(one)) == (voice(other), prompt_tokens(other))
    assert bench.engine.ahead(asks(user(ASK))) is None


def test_the_order_of_pictures_matters(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()
    first = alone(bench, asks(user(ONE, OTHER, ASK)))
    turned = alone(bench, asks(user(OTHER, ONE, ASK)))
    assert voice(first) != voice(turned)


def test_a_picture_of_an_earlier_turn_is_remembered(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()

    def talk(shown: ImagePart) -> list[float]:
        answer = ChatMessage(role="assistant", parts=(TextPart("A thing."),))
        later = user(TextPart("Is it red?"))
        return voice(alone(bench, asks(user(shown, ASK), answer, later)))

    assert talk(ONE) != talk(OTHER)


def test_a_batch_answers_as_each_alone(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()
    requests = [
        asks(user(ONE, ASK)),
        asks(user(TextPart("Hello."))),
        asks(user(OTHER, TextPart("And this, is it larger?"))),
    ]
    single = [alone(bench, request).text for request in requests]
    together = [bench.ask(request) for request in requests]
    bench.run(*together)
    assert [answer.text for answer in together] == single
    assert any(len(answer.deltas) > 1 for answer in together), "streamed, not sent as one"


def line(bench: Bench) -> PictureLine:
    """The pictures of its rows, in line or in the batch."""
    held: PictureLine = bench.engine._generator._pictures  # type: ignore[attr-defined]
    return held


def pictured() -> list[Generate]:
    return [
        asks(user(ONE, ASK)),
        asks(user(OTHER, TextPart("And this?"))),
        asks(user(ONE, TextPart("and"), OTHER, TextPart("which is larger?"))),
        asks(user(TextPart("Is it red?"), OTHER)),
    ]


def test_rows_in_line_hold_tensors_within_a_bound(
    open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, requests = open_bench(), pictured()
    expected = [alone(bench, request) for request in requests]
    mx.synchronize()
    bench.engine.trim()
    before = mx.get_active_memory()
    first = bench.ask(requests[0])
    bound = line(bench).tensors_bytes
    assert 0 < bound <= mx.get_active_memory() - before
    monkeypatch.setattr("daemon.worker.engines.visionpictures.TENSORS_BYTES_MAX", bound)
    held = mx.get_active_memory()
    answers = [first, *(bench.ask(request) for request in requests[1:])]
    assert line(bench).tensors_bytes == bound
    assert mx.get_active_memory() == held, "nothing else holds them either"
    bench.run(*answers)
    assert line(bench).tensors_bytes == line(bench).files_bytes == 0
    for answer, other in zip(answers, expected, strict=True):
        assert (answer.text, prompt_tokens(answer)) == (other.text, prompt_tokens(other))
        assert voice(answer) == pytest.approx(voice(other), abs=1e-3)


def test_pictures_that_cannot_be_read_again_fail_their_row_alone(
    open_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, requests = open_bench(), pictured()
    expected = alone(bench, requests[0])
    monkeypatch.setattr("daemon.worker.engines.visionpictures.TENSORS_BYTES_MAX", 0)
    kept, lost = (bench.ask(request) for request in requests[:2])
    monkeypatch.setattr("daemon.worker.engines.images.PIXELS_MAX", 1)
    bench.run(kept, lost)
    assert lost.fail is not None
    assert lost.fail.fault.code is Code.WORKER_FAILED
    assert "at most" in lost.fail.fault.message
    assert kept.text == expected.text
    assert line(bench).tensors_bytes == line(bench).files_bytes == 0


def test_decoded_pictures_do_not_wait_with_their_row(open_bench: Callable[[], Bench]) -> None:
    bench = open_bench()
    work = bench.engine.ahead(pictured()[2])
    assert work is not None
    prepared = work()
    assert isinstance(prepared, Generate)
    pictures = [ref(image) for image in decode_images(prepared.messages or ())]
    answer = bench.ask(prepared)
    del work, prepared
    assert [picture() for picture in pictures] == [None, None]
    bench.run(answer)
    assert answer.done is not None


def test_a_mark_typed_by_a_user_is_refused(folder: Path, open_bench: Callable[[], Bench]) -> None:
    mark = FAMILIES[folder.name].mark
    with pytest.raises(MlxdError) as caught:
        open_bench().ask(asks(user(ONE, TextPart(f"and {mark}"))))
    assert caught.value.code is Code.INVALID_REQUEST
