"""Jobs: in turn, cancelled between pieces, failing alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.wire.data import Audio, Begin, CountTokens, Done, Embed, Fail, Speak, WorkRequest
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import jobs
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.folder import read_json
from daemon.worker.engines.jobs import JOBS_MAX, Job, JobEngine, JobModel
from tests.contract.bench import begin
from tests.contract.jobs import JobBench
from tests.contract.tiny import build_embedding_model


class Echo(JobModel):
    """Gives a text back, a letter a piece; "!" fails, and "?" is refused in the middle."""

    does = "echoes"

    def accept(self, request: WorkRequest) -> Job | None:
        if not isinstance(request, Speak):
            return None
        if request.text == "broken":
            raise RuntimeError("broken")
        text = request.text
        return Job(len(text), lambda job: self._run(job, text), held_bytes=len(text))

    def _run(self, job: Job, text: str) -> Iterator[Audio | None]:
        for letter in text:
            if letter == "!":
                raise RuntimeError("as asked")
            if letter == "?":
                raise invalid("not that", "text")
            job.completion_tokens += 1
            yield None if letter == "_" else Audio(data=letter.encode())


class EchoEngine(JobEngine):
    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        assert config == read_json(Path(begin.path) / "config.json")
        progress(1, 1)
        return Echo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_embedding_model(tmp_path_factory.mktemp("m"))


@pytest.fixture
def bench(folder: Path) -> JobBench:
    engine = EchoEngine()
    engine.load(begin(folder, "speech", rows_max=2), lambda _done, _total: None)
    return JobBench(engine)


def say(text: str) -> Speak:
    return Speak(lease="l", text=text, voice="v")


def heard(result: Any) -> bytes:
    return b"".join(frame.data for frame in result.frames)


def test_usage_counts_what_the_job_counted(bench: JobBench) -> None:
    result = bench.whole(say("ab_c"))
    assert heard(result) == b"abc"
    assert isinstance(result.end, Done)
    assert (result.end.usage.prompt_tokens, result.end.usage.completion_tokens) == (4, 4)
    assert result.usage == result.end.usage
    assert not bench.engine.busy


def test_as_many_as_rows_max_take_turns_and_the_others_wait(bench: JobBench) -> None:
    first, second, third = (bench.ask(say(text)) for text in ("aaaa", "bbbb", "c"))
    for _ in range(4):
        bench.step()
    assert (heard(first), heard(second), heard(third)) == (b"aa", b"bb", b"")
    bench.run()
    assert heard(third) == b"c"


@pytest.mark.parametrize(
    ("text", "code"), [("a!", Code.WORKER_FAILED), ("a?", Code.INVALID_REQUEST)]
)
def test_a_failure_is_the_jobs_alone(bench: JobBench, text: str, code: Code) -> None:
    bad, good = bench.ask(say(text)), bench.ask(say("xyz"))
    bench.run()
    assert isinstance(bad.end, Fail)
    assert bad.end.fault.code is code
    assert heard(good) == b"xyz"


def test_what_cannot_be_accepted_is_refused(bench: JobBench) -> None:
    with pytest.raises(MlxdError) as caught:
        bench.engine.submit(9, say("broken"))
    assert caught.value.code is Code.WORKER_FAILED
    with pytest.raises(MlxdError, match="this model echoes; use an embeddings model"):
        bench.engine.submit(9, Embed(lease="l", inputs=("x",)))
    with pytest.raises(MlxdError, match="text or vision"):
        bench.engine.count(CountTokens(lease="l", messages=()))
    assert not bench.engine.busy


def test_cancel_takes_effect_before_the_next_piece(bench: JobBench) -> None:
    kept, dropped = bench.ask(say("abc")), bench.ask(say("defg"))
    bench.step()
    bench.step()
    usage = bench.engine.cancel(2)
    assert usage is not None
    assert usage.completion_tokens == 1
    bench.run(kept)
    assert (heard(kept), heard(dropped), dropped.end) == (b"abc", b"d", None)
    assert bench.engine.cancel(2) is None
    assert not bench.engine.busy


def test_the_line_is_bounded(bench: JobBench) -> None:
    for number in range(JOBS_MAX):
        bench.engine.submit(number, say("a"))
    with pytest.raises(MlxdError) as caught:
        bench.engine.submit(JOBS_MAX, say("a"))
    assert caught.value.code is Code.QUEUE_FULL


def test_what_the_line_holds_is_bounded(bench: JobBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "HELD_BYTES_MAX", 10)
    before = bench.engine.memory_bytes()
    bench.engine.submit(1, say("longer than that"))
    with pytest.raises(MlxdError, match="files of other requests") as caught:
        bench.engine.submit(2, say("a"))
    assert caught.value.code is Code.QUEUE_FULL
    assert bench.engine.memory_bytes() - before >= len("longer than that")
    bench.engine.cancel(1)
    for number in (3, 4):
        bench.engine.submit(number, say("five5"))
    with pytest.raises(MlxdError, match="files of other requests"):
        bench.engine.submit(5, say("a"))


def test_adapters_are_refused(folder: Path) -> None:
    told = Begin(**{**_fields(begin(folder, "speech")), "adapter": "/a"})
    with pytest.raises(LoadRefused, match="adapter"):
        EchoEngine().load(told, lambda _done, _total: None)


def _fields(told: Begin) -> dict[str, Any]:
    return {name: getattr(told, name) for name in told.__struct_fields__}
