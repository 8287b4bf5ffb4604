"""The shipped worker process with real engines: same text as the libraries in this process."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlx_lm import generate as lm_generate
from mlx_lm import load as lm_load
from mlx_vlm import generate as vlm_generate
from mlx_vlm import load as vlm_load
from PIL import Image

from daemon.wire.data import (
    Accepted,
    ChatMessage,
    CountTokens,
    Done,
    Drain,
    Drained,
    Embed,
    Fail,
    Generate,
    ImagePart,
    Retire,
    Running,
    Sampling,
    StillBusy,
    TextPart,
    TokenCount,
)
from daemon.wire.errors import Code
from tests.contract.tiny import build_embedding_model, build_text_model, build_vision_model
from tests.daemon.worker.harness import REAL, Link, Worker, running_worker

PROMPTS = ("Tell me a story.", "What is 2 + 2?", "Ping")


@pytest.fixture(scope="module")
def short_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mlxd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def text(short_dir: Path) -> Iterator[tuple[Worker, Link, Path]]:
    folder = build_text_model(short_dir / "text")
    with running_worker(short_dir, REAL, worker="t") as worker:
        yield worker, worker.load(folder, "text"), folder


@pytest.fixture(scope="module")
def vision(short_dir: Path) -> Iterator[tuple[Worker, Link, Path]]:
    folder = build_vision_model(short_dir / "vision")
    with running_worker(short_dir, REAL, worker="v") as worker:
        yield worker, worker.load(folder, "vision"), folder


def request(*parts: TextPart | ImagePart, **fields: Any) -> Generate:
    fields = {"lease": "l", "max_tokens": 24, "sampling": Sampling(temperature=0), **fields}
    return Generate(messages=(ChatMessage(role="user", parts=parts),), **fields)


def whole(worker: Worker, *asked: Generate) -> list[tuple[str, Any]]:
    """The answers to requests that run at the same time."""
    clients = [worker.client() for _ in asked]
    for client, one in zip(clients, asked, strict=True):
        client.send(one)
    for client in clients:
        first = client.answer()
        assert isinstance(first, Accepted), first
    return [client.rest() for client in clients]


def test_text_equals_mlx_lm_alone_and_together(text: tuple[Worker, Link, Path]) -> None:
    worker, _, folder = text
    model, tokenizer = lm_load(str(folder))[:2]
    expected = []
    for prompt in PROMPTS:
        talk = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(talk, add_generation_prompt=True)
        expected.append(lm_generate(model, tokenizer, tokens, max_tokens=24))
    asked = [request(TextPart(prompt)) for prompt in PROMPTS]
    assert [whole(worker, one)[0][0] for one in asked] == expected
    together = whole(worker, *asked)
    assert [answer for answer, _ in together] == expected
    assert all(isinstance(terminal, Done) for _, terminal in together)


def test_template_errors_reach_the_client(text: tuple[Worker, Link, Path]) -> None:
    client = text[0].client()
    first = ChatMessage(role="tool", parts=(TextPart("42"),))
    client.send(Generate(lease="l", messages=(first,)))
    fail = client.answer()
    assert isinstance(fail, Fail)
    assert fail.fault.code is Code.INVALID_REQUEST
    assert "cannot begin with a tool result" in fail.fault.message


def test_a_bias_beyond_the_vocabulary_does_not_end_the_process(
    text: tuple[Worker, Link, Path],
) -> None:
    client = text[0].client()
    client.send(request(TextPart("x"), sampling=Sampling(logit_bias={100_000_000: 5.0})))
    fail = client.answer()
    assert isinstance(fail, Fail)
    assert fail.fault.field == "logit_bias"
    assert whole(text[0], request(TextPart("x")))[0][0]


def test_closing_in_a_long_prefill_frees_the_model(text: tuple[Worker, Link, Path]) -> None:
    worker, link, _ = text
    client = worker.client()
    client.send(request(TextPart("word " * 1500), max_tokens=2000, lease="long"))
    assert isinstance(client.answer(), Accepted)
    while "long" not in link.until(Running).leases:
        continue
    link.send(Drain())
    assert link.until(StillBusy).running == 1
    client.close()
    assert link.until(Running).running == 0


def test_counting_is_one_frame_and_no_work(text: tuple[Worker, Link, Path]) -> None:
    worker, _, _ = text
    messages = (ChatMessage(role="user", parts=(TextPart("Ping"),)),)
    client = worker.client()
    client.send(CountTokens(lease="l", messages=messages))
    counted = client.answer()
    assert isinstance(counted, TokenCount)
    assert client.answer() is None, "the connection ends with the count"
    _, done = whole(worker, request(TextPart("Ping"), max_tokens=1))[0]
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == counted.prompt_tokens


def test_a_count_that_cannot_be_is_refused(text: tuple[Worker, Link, Path]) -> None:
    client = text[0].client()
    client.send(CountTokens(lease="l", messages=()))
    fail = client.answer()
    assert isinstance(fail, Fail)
    assert fail.fault.field == "messages"


def test_embeddings_over_the_socket(short_dir: Path) -> None:
    folder = build_embedding_model(short_dir / "embeddings")
    with running_worker(short_dir, REAL, worker="e") as worker:
        link = worker.load(folder, "embeddings")
        client = worker.client()
        client.send(Embed(lease="l", inputs=("hello", "a cat")))
        accepted, vectors, done = (client.answer() for _ in range(3))
        assert (accepted.prompt_tokens, len(vectors.vectors)) == (14, 2)
        assert all(len(vector) == 4 * 32 for vector in vectors.vectors)
        assert isinstance(done, Done)
        assert done.usage.prompt_tokens == 14
        client = worker.ask("not for this one")
        fail = client.answer()
        assert isinstance(fail, Fail)
        assert "text or vision" in fail.fault.message
        link.send(Retire(reason="test"))
        assert worker.wait() == 0


def picture(color: str, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, color)


def part(image: Image.Image) -> ImagePart:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ImagePart(buffer.getvalue())


def test_vision_equals_mlx_vlm(vision: tuple[Worker, Link, Path]) -> None:
    worker, _, folder = vision
    model, processor = vlm_load(str(folder))
    images = [picture("red"), picture("blue", (48, 32))]
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Compare."}]
    prompt = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    expected = vlm_generate(model, processor, prompt, image=images, max_tokens=24, temperature=0.0)
    asked = request(part(images[0]), part(images[1]), TextPart("Compare."))
    (answer, done), (beside, _) = whole(worker, asked, request(TextPart("Ping")))
    # Random weights write broken characters, which mlx_vlm leaves out, and markers, as we do.
    assert answer.replace("\ufffd", "") == expected.text.replace("</think>", "")
    swapped = request(part(images[1]), part(images[0]), TextPart("Compare."))
    assert whole(worker, swapped)[0][0] != answer, "the order matters"
    assert isinstance(done, Done)
    assert done.usage.prompt_tokens == expected.prompt_tokens
    assert beside == whole(worker, request(TextPart("Ping")))[0][0]


def test_a_damaged_picture_fails_alone(vision: tuple[Worker, Link, Path]) -> None:
    worker = vision[0]
    good = worker.client()
    good.send(request(TextPart("Ping"), max_tokens=40))
    assert isinstance(good.answer(), Accepted)
    bad = worker.client()
    bad.send(request(TextPart("What?"), ImagePart(part(picture("red")).data[:60])))
    fail = bad.answer()
    assert isinstance(fail, Fail)
    assert (fail.fault.code, fail.fault.field) == (
        Code.INVALID_REQUEST,
        "messages[0].content[1]",
    )
    assert isinstance(good.rest()[1], Done)


def test_draining_and_retiring_real_models(
    text: tuple[Worker, Link, Path], vision: tuple[Worker, Link, Path]
) -> None:
    """Last in this file: both workers end here."""
    for worker, link, _ in (text, vision):
        link.send(Drain())
        link.until(Drained)
        link.send(Retire(reason="test"))
        assert worker.wait() == 0
        assert "Traceback" not in worker.log
