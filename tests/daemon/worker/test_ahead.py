"""Work ahead of the model: beside the rows that run, in order, and one request's at a time."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from daemon.wire.data import (
    Accepted,
    ChatMessage,
    CountTokens,
    Delta,
    Done,
    Drain,
    Fail,
    Generate,
    LinkReport,
    Ready,
    Retire,
    StillBusy,
    TextPart,
    TokenCount,
    WorkAnswer,
    WorkRequest,
)
from daemon.wire.errors import Code, MlxdError
from daemon.worker.ahead import Ahead, Work
from daemon.worker.inbox import Cancel, Command, Inbox, LinkUp, Message, Post, Prepared, Submit
from daemon.worker.runner import Runner
from tests.daemon.worker.harness import begin
from tests.fakes.engine import FakeConfig, FakeEngine, write_fake_model

PATIENCE_S = 30.0
RETIRE = Command(Retire(reason="test", grace_s=60))


class Works(FakeEngine):
    """An engine with work ahead for prompts that a test has given work to."""

    def __init__(self) -> None:
        super().__init__()
        self.works: dict[str, Work] = {}
        self.submitted: list[int] = []

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        if isinstance(request, CountTokens):
            return self.works.get("count")
        return self.works.get(str(request.prompt)) if isinstance(request, Generate) else None

    def count(self, request: CountTokens) -> int:
        return 7

    def submit(self, request_id: int, request: WorkRequest) -> int:
        self.submitted.append(request_id)
        return super().submit(request_id, request)


class Posts:
    """What the loop handed over; frames and reports are shown to ``see`` and ``hear``."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.see: Callable[[int, WorkAnswer], None] = lambda _number, _frame: None
        self.hear: list[Callable[[LinkReport], None]] = []

    def post(self, post: Post) -> None:
        self.posts.append(post)
        for report in post.reports:
            for hear in self.hear:
                hear(report)
        for number, frame in post.frames:
            self.see(number, frame)

    def of(self, number: int) -> list[WorkAnswer]:
        return [frame for post in self.posts for one, frame in post.frames if one == number]


@pytest.fixture
def engine() -> Works:
    return Works()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def posts() -> Posts:
    return Posts()


@pytest.fixture
def run(tmp_path: Path, engine: Works, inbox: Inbox, posts: Posts) -> Callable[..., None]:
    """Runs a worker to its end; it finds these messages once its model is loaded."""
    folder = write_fake_model(tmp_path, FakeConfig(reply="x"))

    def go(*messages: Message) -> None:
        def deliver(report: LinkReport) -> None:
            for message in messages if isinstance(report, Ready) else ():
                inbox.put(message)

        posts.hear.append(deliver)
        inbox.put(LinkUp())
        inbox.put(Command(begin(folder)))
        assert Runner("1", {"fake": lambda: engine}, inbox, posts).run() == 0

    return go


def ask(number: int, prompt: str, max_tokens: int = 4) -> Submit:
    return Submit(number, Generate(lease="l", prompt=prompt, max_tokens=max_tokens))


def done(request: Generate) -> Work:
    return lambda: request


def test_rows_go_on_while_a_picture_is_decoded(
    run: Callable[..., None], engine: Works, posts: Posts
) -> None:
    streams, ended = threading.Event(), threading.Event()

    def decode() -> Generate:
        assert streams.wait(PATIENCE_S), "the other row never wrote anything meanwhile"
        assert ended.wait(PATIENCE_S)
        return Generate(lease="l", prompt="decoded", max_tokens=2)

    def see(number: int, frame: WorkAnswer) -> None:
        if number == 1 and isinstance(frame, Delta):
            streams.set()
        if number == 1 and isinstance(frame, Done):
            ended.set()

    engine.works["picture"] = decode
    posts.see = see
    run(ask(1, "row"), ask(2, "picture"), RETIRE)
    assert [type(frame) for frame in posts.of(2)] == [Accepted, Delta, Delta, Done]
    assert posts.of(2)[0] == Accepted(prompt_tokens=len("decoded")), "what was prepared is served"
    assert engine.submitted == [1, 2]


def test_what_is_wrong_is_said_as_if_the_engine_had_found_it(
    run: Callable[..., None], engine: Works, posts: Posts
) -> None:
    def damaged() -> Generate:
        raise MlxdError(Code.INVALID_REQUEST, "damaged", field="messages[0].content[1]")

    def broken() -> Generate:
        raise ZeroDivisionError("by 0")

    engine.works = {"damaged": damaged, "broken": broken}
    run(ask(1, "damaged"), ask(2, "broken"), ask(3, "row"), RETIRE)
    (first,), (second,) = posts.of(1), posts.of(2)
    assert isinstance(first, Fail)
    assert isinstance(second, Fail)
    assert first.fault.code is Code.INVALID_REQUEST
    assert first.fault.field == "messages[0].content[1]"
    assert second.fault.code is Code.WORKER_FAILED
    assert "ZeroDivisionError: by 0" in second.fault.message
    assert isinstance(posts.of(3)[-1], Done)


def test_a_client_that_goes_away_meanwhile_is_forgotten(
    run: Callable[..., None], engine: Works, inbox: Inbox, posts: Posts
) -> None:
    """One at work, whose result is dropped, and one in line, whose work is never begun."""
    gone = threading.Event()
    begun: list[str] = []

    def decode(name: str) -> Generate:
        begun.append(name)
        if name == "first":
            inbox.put(Cancel(1))
            inbox.put(Cancel(2))
            inbox.put(ask(4, "row"))
            assert gone.wait(PATIENCE_S)
        return Generate(lease="l", prompt=name, max_tokens=2)

    def see(number: int, frame: WorkAnswer) -> None:
        if number == 4:
            gone.set()
        if number == 3 and isinstance(frame, Done):
            inbox.put(RETIRE)

    engine.works = {name: partial(decode, name) for name in ("first", "second", "third")}
    posts.see = see
    run(ask(1, "first"), ask(2, "second"), ask(3, "third"))
    assert begun == ["first", "third"]
    assert sorted(engine.submitted) == [3, 4]
    assert posts.of(1) == posts.of(2) == []
    assert isinstance(posts.of(3)[-1], Done)


def test_a_model_is_not_unloaded_under_a_request_that_is_prepared(
    run: Callable[..., None], engine: Works, posts: Posts
) -> None:
    told = threading.Event()

    def decode() -> Generate:
        assert told.wait(PATIENCE_S)
        return Generate(lease="l", prompt="decoded", max_tokens=2)

    engine.works["picture"] = decode
    posts.hear.append(lambda report: told.set() if isinstance(report, StillBusy) else None)
    run(ask(1, "picture"), Command(Drain()), RETIRE)
    assert StillBusy(running=1) in [report for one in posts.posts for report in one.reports]
    assert isinstance(posts.of(1)[-1], Done), "what was there before the end is served"


def test_a_count_waits_for_its_pictures_too(
    run: Callable[..., None], engine: Works, inbox: Inbox, posts: Posts
) -> None:
    messages = (ChatMessage(role="user", parts=(TextPart("Hello"),)),)
    request = CountTokens(lease="l", messages=messages)
    main, threads = threading.current_thread(), []

    def decode() -> CountTokens:
        threads.append(threading.current_thread())
        return request

    engine.works["count"] = decode
    posts.see = lambda _number, _frame: inbox.put(RETIRE)
    run(Submit(1, request))
    assert posts.of(1) == [TokenCount(prompt_tokens=7)], "as this engine counts"
    assert main not in threads
    assert len(threads) == 1


def test_the_next_work_begins_when_the_last_result_was_taken(inbox: Inbox) -> None:
    ahead = Ahead(inbox)
    begun = threading.Event()
    first = Generate(lease="l", prompt="1")
    second = Generate(lease="l", prompt="2")

    def late() -> Generate:
        begun.set()
        return second

    ahead.begin(1, done(first))
    ahead.begin(2, late)
    assert inbox.next(PATIENCE_S) == Prepared(1, first)
    assert not begun.wait(0.2), "two requests' pictures would be decoded at once"
    ahead.taken()
    assert inbox.next(PATIENCE_S) == Prepared(2, second)
