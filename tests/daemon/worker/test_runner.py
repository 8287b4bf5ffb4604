"""The main thread's loop, driven through its inbox, with time in the test's hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.wire.data import (
    Accepted,
    Bye,
    Fail,
    Generate,
    LinkReport,
    Measured,
    Ready,
    Retire,
    Running,
    Trim,
    WorkAnswer,
    Written,
)
from daemon.wire.errors import Code
from daemon.worker.inbox import (
    Cancel,
    Command,
    Inbox,
    LinkDown,
    LinkUp,
    Message,
    Post,
    Submit,
    Terminate,
)
from daemon.worker.runner import Runner
from tests.daemon.worker.harness import begin
from tests.fakes.engine import FakeConfig, FakeEngine, write_fake_model


class Posts:
    """Everything that the loop handed over; ``hooks`` see each post as it comes."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, WorkAnswer]] = []
        self.reports: list[LinkReport] = []
        self.hooks: list[Callable[[Post], None]] = []

    def post(self, post: Post) -> None:
        assert post != Post(), "nothing is not worth a hand-over"
        self.frames += post.frames
        self.reports += post.reports
        for hook in self.hooks:
            hook(post)


class GrowingEngine(FakeEngine):
    """Holds more when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.extra_bytes = 0

    def memory_bytes(self) -> int:
        return 10_000 + self.extra_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_fake_model(tmp_path, FakeConfig(reply="x"))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def posts() -> Posts:
    return Posts()


def runner(inbox: Inbox, posts: Posts, **changes: float) -> Runner:
    return Runner("1", {"fake": FakeEngine}, inbox, posts, **changes)  # type: ignore[arg-type]


def test_without_begin_it_ends_itself(inbox: Inbox, posts: Posts) -> None:
    inbox.put(LinkUp())
    assert runner(inbox, posts, begin_timeout_s=0.02).run() == 0
    assert posts.reports == [Bye(reason="no begin came")]


def loaded(inbox: Inbox, posts: Posts, folder: Path, *messages: Message) -> Runner:
    """A runner that finds these messages in its inbox once the model is loaded."""

    def deliver(post: Post) -> None:
        if any(isinstance(report, Ready) for report in post.reports):
            for message in messages:
                inbox.put(message)

    posts.hooks.append(deliver)
    inbox.put(LinkUp())
    inbox.put(Command(begin(folder)))
    return runner(inbox, posts)


def ask(number: int, max_tokens: int | None = None) -> Submit:
    return Submit(number, Generate(lease="l", prompt="p", max_tokens=max_tokens))


RETIRE = Command(Retire(reason="test", grace_s=60))


def test_everything_of_a_turn_is_one_post(inbox: Inbox, posts: Posts, folder: Path) -> None:
    """All rows' frames of one step come in one hand-over, and each row gives one delta."""
    made = loaded(inbox, posts, folder, ask(1, 4), ask(2, 4), ask(3, 4), RETIRE)
    seen: list[list[int]] = []
    posts.hooks.append(lambda post: seen.append([number for number, _ in post.frames]))
    assert made.run() == 0
    # The first: three acceptances, and the first step of all three. The last: delta and done.
    busy = [numbers for numbers in seen if numbers]
    assert busy == [[1, 2, 3, 1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 1, 2, 2, 3, 3]]


def test_what_is_cancelled_before_its_first_step_never_runs(
    inbox: Inbox, posts: Posts, folder: Path
) -> None:
    assert loaded(inbox, posts, folder, ask(1, 4), Cancel(1), Cancel(99), RETIRE).run() == 0
    assert posts.frames == [(1, Accepted(prompt_tokens=1))]
    assert not any(isinstance(report, Running) for report in posts.reports), "it never changed"


def test_a_second_begin_changes_nothing(inbox: Inbox, posts: Posts, folder: Path) -> None:
    again = Command(begin(folder / "elsewhere"))
    assert loaded(inbox, posts, folder, again, RETIRE).run() == 0
    assert sum(isinstance(report, Ready) for report in posts.reports) == 1


def test_a_shorter_retire_wins(inbox: Inbox, posts: Posts, folder: Path) -> None:
    gently = Command(Retire(reason="gently", grace_s=1000))
    now = Command(Retire(reason="now", grace_s=0))
    assert loaded(inbox, posts, folder, ask(1), gently, now, ask(2)).run() == 0
    codes = {number: f.fault.code for number, f in posts.frames if isinstance(f, Fail)}
    assert codes == {1: Code.SHUTTING_DOWN, 2: Code.BUSY}
    assert posts.reports[-1] == Bye(reason="gently")


def test_retire_before_begin_and_while_loading(inbox: Inbox, posts: Posts, folder: Path) -> None:
    inbox.put(Command(begin(folder)))
    inbox.put(ask(1))
    inbox.put(Terminate())
    assert runner(inbox, posts).run() == 0
    assert posts.reports[-1] == Bye(reason="terminated")
    assert not any(isinstance(report, Ready) for report in posts.reports)
    ((number, fail),) = posts.frames
    assert isinstance(fail, Fail)
    assert (number, fail.fault.code) == (1, Code.BUSY)


def test_time_without_a_daemon_counts_from_the_last_link(
    inbox: Inbox, posts: Posts, folder: Path
) -> None:
    now_s = [0.0]
    made = Runner("1", {"fake": FakeEngine}, inbox, posts, monotonic_s=lambda: now_s[0])

    def advance(post: Post) -> None:
        """The daemon leaves at 500 s; from then on every hand-over takes 30 s."""
        if any(isinstance(report, Ready) for report in post.reports):
            now_s[0] = 500.0
            inbox.put(LinkDown())
            inbox.put(ask(1, 5))
        elif post.frames:
            now_s[0] += 30.0

    posts.hooks.append(advance)
    inbox.put(LinkUp())
    inbox.put(Command(begin(folder, detach_grace_s=100.0)))
    assert made.run() == 0
    assert now_s[0] == 650.0, "five steps past the grace, because a request ran"
    assert posts.reports[-1] == Bye(reason="no daemon came back")


@pytest.mark.parametrize(("growth", "told"), [(400, []), (600, [10_600])])
def test_memory_is_reported_when_it_changed_notably(
    inbox: Inbox, posts: Posts, folder: Path, growth: int, told: list[int]
) -> None:
    """From 5 % of what was reported last, or 64 MiB."""
    engine = GrowingEngine()
    made = Runner("1", {"fake": lambda: engine}, inbox, posts)

    def grow(post: Post) -> None:
        if any(isinstance(report, Ready) for report in post.reports):
            engine.extra_bytes = growth
            for message in (ask(1, 1), ask(2, 1), RETIRE):
                inbox.put(message)

    posts.hooks.append(grow)
    inbox.put(Command(begin(folder)))
    made.run()
    assert [r.measured_bytes for r in posts.reports if isinstance(r, Ready)] == [10_000]
    assert [r.measured_bytes for r in posts.reports if isinstance(r, Measured)] == told


def test_caches_are_dropped_when_told_and_what_is_held_then_is_reported(
    inbox: Inbox, posts: Posts, tmp_path: Path
) -> None:
    config = FakeConfig(reply="x", weights_bytes=10_000, keeps_bytes=5_000)
    folder = write_fake_model(tmp_path / "keeper", config)
    made = loaded(inbox, posts, folder, ask(1, 1))

    def trim(post: Post) -> None:
        if Measured(measured_bytes=15_000) in post.reports:
            inbox.put(Command(Trim()))
            inbox.put(RETIRE)

    posts.hooks.append(trim)
    assert made.run() == 0
    assert [r.measured_bytes for r in posts.reports if isinstance(r, Measured)] == [15_000, 10_000]


def test_trim_before_anything_is_loaded(inbox: Inbox, posts: Posts) -> None:
    inbox.put(LinkUp())
    inbox.put(Command(Trim()))
    assert runner(inbox, posts, begin_timeout_s=0.02).run() == 0


def test_what_was_written_is_told_once_nothing_runs(
    inbox: Inbox, posts: Posts, folder: Path
) -> None:
    assert loaded(inbox, posts, folder, ask(1, 4), ask(2, 6), RETIRE).run() == 0
    told = [report.tokens for report in posts.reports if isinstance(report, Written)]
    assert told[-1] == 10


class TidyEngine(FakeEngine):
    """Has so many pieces of work that can wait; says when each was done."""

    def __init__(self, pieces: int, done: Callable[[int], None]) -> None:
        super().__init__()
        self._left = pieces
        self._done = done

    def put_away(self) -> bool:
        assert not self.busy, "a request runs"
        self._left -= 1
        self._done(self._left)
        return self._left > 0


def tidying(
    inbox: Inbox, posts: Posts, folder: Path, pieces: int, done: Callable[[int], None]
) -> Runner:
    """Loaded, one request answered; time passes at every look at the clock."""
    moments = iter(range(1_000_000))
    loaded(inbox, posts, folder, ask(1, 3))
    return Runner(
        "1",
        {"fake": lambda: TidyEngine(pieces, done)},
        inbox,
        posts,
        monotonic_s=lambda: next(moments) / 10,
    )


def test_what_can_wait_is_done_once_nothing_runs(inbox: Inbox, posts: Posts, folder: Path) -> None:
    left: list[int] = []

    def done(pieces: int) -> None:
        left.append(pieces)
        if pieces == 0:
            inbox.put(RETIRE)

    assert tidying(inbox, posts, folder, 3, done).run() == 0
    assert left == [2, 1, 0], "and nothing more at the end"


def test_at_its_end_a_worker_does_not_tidy_up_for_long(
    inbox: Inbox, posts: Posts, folder: Path
) -> None:
    left: list[int] = []

    def done(pieces: int) -> None:
        if not left:
            inbox.put(RETIRE)
        left.append(pieces)

    assert tidying(inbox, posts, folder, 1_000, done).run() == 0
    assert 2 <= len(left) <= 10
