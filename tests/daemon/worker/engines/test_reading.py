"""Long prompts are read by another thread, once, and to the same tokens."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlx_lm.utils import load_tokenizer

from daemon.wire.data import (
    ChatMessage,
    CountTokens,
    Embed,
    Generate,
    ImagePart,
    TextPart,
    ToolCall,
)
from daemon.wire.errors import MlxdError
from daemon.worker.engines import REGISTRY, reading
from daemon.worker.engines.reading import LONG_CHARS, Reader
from tests.contract.bench import Bench, ask, begin
from tests.contract.tiny import SPECIAL, build_text_model, write_tokenizer

LONG = "a word, " * (LONG_CHARS // 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def reader(folder: Path) -> Reader:
    return Reader(load_tokenizer(folder), "m", 512, finds_cuts=True)


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    told = begin(folder, "text")
    engine = REGISTRY["text"]()
    engine.load(told, lambda _done, _total: None)
    yield Bench(engine, told)
    engine.close()


def count(text: str) -> CountTokens:
    return CountTokens(lease="l", messages=(ChatMessage(role="user", parts=(TextPart(text),)),))


def plain(prompt: str | tuple[int, ...]) -> Generate:
    return Generate(lease="l", prompt=prompt)


def test_short_requests_and_token_ids_are_read_where_they_are_submitted(reader: Reader) -> None:
    tokens = tuple([5] * LONG_CHARS)
    embed = Embed(lease="l", inputs=(LONG,))
    for request in (ask(), count("hi"), plain("hi"), plain(tokens), embed):
        assert reader.ahead(request) is None


TOOL = {"type": "function", "function": {"name": "f", "description": LONG}}
CALL = ToolCall(id="c", name="f", arguments=json.dumps({"x": LONG}))


@pytest.mark.parametrize(
    "request_",
    [
        ask(LONG),
        count(LONG),
        plain(LONG),
        msgspec.structs.replace(ask(), tools=(TOOL,)),
        Generate(lease="l", messages=(ChatMessage(role="assistant", tool_calls=(CALL,)),)),
    ],
    ids=["conversation", "count", "prompt", "tools", "calls"],
)
def test_whatever_makes_a_request_long_is_read_ahead(
    reader: Reader, request_: Generate | CountTokens
) -> None:
    work = reader.ahead(request_)
    assert work is not None
    ahead = work()
    assert isinstance(ahead, type(request_))
    for name in request_.__struct_fields__:
        assert getattr(ahead, name) == getattr(request_, name)
    at_once = reader.read(request_)
    assert len(at_once.tokens) > LONG_CHARS / 8
    reader._tokenizer = None
    assert reader.read(ahead) == at_once


def test_where_the_answer_opens(reader: Reader) -> None:
    read = reader.read(ask())
    assert read.cut is not None
    assert 0 < read.cut < len(read.tokens)
    assert reader.read(plain("hi")).cut is None
    assert reader.read(count("hi")).cut is None
    assert reader.read(count("Tell me a story.")).tokens == read.tokens


def test_what_is_wrong_is_said_by_the_other_thread_as_well(reader: Reader) -> None:
    picture = ChatMessage(role="user", parts=(TextPart(LONG), ImagePart(b"x")))
    work = reader.ahead(Generate(lease="l", messages=(picture,)))
    assert work is not None
    with pytest.raises(MlxdError, match="reads text only"):
        work()


def test_answers_are_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONG_CHARS", 10)
    request = ask(max_tokens=8)
    work = bench.engine.ahead(request)
    assert work is not None
    ahead = work()
    assert isinstance(ahead, Generate)
    first, second = bench.ask(ahead), bench.ask(request)
    bench.run()
    assert first.text == second.text
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    counting = bench.engine.ahead(count("Tell me a story."))
    assert counting is not None
    counted = counting()
    assert isinstance(counted, CountTokens)
    assert bench.engine.count(counted) == first.usage.prompt_tokens


def test_encoding_changes_nothing_in_the_tokenizer_so_that_two_threads_may(
    tmp_path: Path,
) -> None:
    """A tokenizer.json that cuts texts off, as many do for training: the first use undoes it."""
    write_tokenizer(tmp_path, SPECIAL)
    tokenizer: Any = load_tokenizer(tmp_path)
    backend = tokenizer._tokenizer._tokenizer
    backend.enable_truncation(16)
    reader = Reader(tokenizer, "m", 512, finds_cuts=False)
    assert backend.truncation is None
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(reader.read, [plain(LONG)] * 8))
    assert {len(one.tokens) for one in read} == {len(reader.read(plain(LONG)).tokens)}
