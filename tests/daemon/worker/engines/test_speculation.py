"""Answers with a draft are the answers without one: alone, joined, cut short, drawn by chance.

Two drafts: a twin of the model, whose guesses are all right, and a stranger, whose are wrong.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.wire.data import Generate, Sampling
from daemon.wire.forms import JsonSchema
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.speculation import SpeculativeDecoder
from daemon.worker.engines.worth import REST_TOKENS, ROUNDS, Worth
from tests.contract.bench import NO_END, PROMPTS, Answer, Bench, alone, ask, begin
from tests.contract.tiny import SPECIAL, build_text_model, write_json
from tests.models import model_path

END = SPECIAL.index("<|im_end|>")
LONG = "Tell me a very long story about dogs, and cats, and what they eat. " * 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "model": build_text_model(base / "model"),
        "twin": build_text_model(base / "twin"),
        "stranger": build_text_model(base / "stranger", seed=8),
    }


def opened(
    folders: dict[str, Path], draft: str | None, *, free: bool = True, **changes: Any
) -> Bench:
    """With a draft whose guesses cost nothing, and so never rest, unless told otherwise."""
    told = begin(folders["model"], "text", draft=draft and str(folders[draft]), **changes)
    engine = REGISTRY["text"]()
    engine.load(told, lambda _done, _total: None)
    bench = Bench(engine, told)
    if draft is not None and free:
        decoder(bench)._worth = Worth(0.0)
    return bench


@pytest.fixture
def plain(folders: dict[str, Path]) -> Iterator[Bench]:
    bench = opened(folders, None)
    yield bench
    bench.engine.close()


@pytest.fixture(params=["twin", "stranger"])
def drafted(folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = opened(folders, request.param)
    yield bench
    bench.engine.close()


@pytest.fixture
def twin(folders: dict[str, Path]) -> Iterator[Bench]:
    bench = opened(folders, "twin")
    yield bench
    bench.engine.close()


def decoder(bench: Bench) -> SpeculativeDecoder:
    found = bench.engine._open._decoder  # type: ignore[attr-defined]
    assert isinstance(found, SpeculativeDecoder)
    return found


def until_guessing(bench: Bench) -> None:
    for _ in range(100):
        if decoder(bench)._run is not None:
            return
        bench.step()
    raise AssertionError("the draft never guesses")


def told(answer: Answer) -> tuple[Any, ...]:
    """What must not differ: the text, why it ended, and what was counted."""
    assert answer.done is not None, answer.fail
    usage = answer.done.usage
    counted = (usage.prompt_tokens, usage.completion_tokens)
    return answer.text, answer.done.finish_reason, answer.done.stop_text, counted


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 50])
def test_greedy_answers_are_equal(plain: Bench, drafted: Bench, tokens: int) -> None:
    for prompt in (*PROMPTS, LONG):
        for sampling in (Sampling(temperature=0), NO_END):
            request = ask(prompt, max_tokens=tokens, sampling=sampling)
            assert told(alone(drafted, request)) == told(alone(plain, request))


def test_good_guesses_save_steps(plain: Bench, twin: Bench) -> None:
    request = ask(max_tokens=80, sampling=Sampling(temperature=0))
    steps = []
    for bench in (plain, twin):
        answer = bench.ask(request)
        steps.append(0)
        while not answer.ended:
            bench.step()
            steps[-1] += 1
    assert told(alone(twin, request)) == told(alone(plain, request))
    assert steps[1] < steps[0] / 3, "three guesses and a token of the model a step"


def test_answers_that_end_by_themselves(plain: Bench, drafted: Bench) -> None:
    ends = set()
    for bias in (3.0, 5.0, 6.0, 7.0, 8.0):
        sampling = Sampling(temperature=0, logit_bias={END: bias})
        for prompt in PROMPTS:
            request = ask(prompt, max_tokens=60, sampling=sampling)
            answer = alone(drafted, request)
            assert told(answer) == told(alone(plain, request))
            if answer.done is not None and answer.done.finish_reason == "stop":
                ends.add(answer.done.usage.completion_tokens)
    assert len(ends - {1}) > 2, "some ended in the middle"


def test_stop_texts_within_what_was_guessed(plain: Bench, drafted: Bench) -> None:
    whole = alone(plain, ask(max_tokens=40, sampling=NO_END)).text
    for place in range(4, 14, 2):
        request = ask(max_tokens=40, sampling=NO_END, stop=(whole[place : place + 2],))
        assert told(alone(drafted, request)) == told(alone(plain, request))
        assert not drafted.engine.busy


def test_seeded_answers_are_drawn_as_without_a_draft(plain: Bench, drafted: Bench) -> None:
    for sampling in (
        Sampling(temperature=0.7, seed=3),
        Sampling(temperature=1.3, seed=4, top_p=0.9, top_k=30, min_p=0.01),
        Sampling(temperature=0.8, seed=5, repetition_penalty=1.3, frequency_penalty=0.4),
        Sampling(temperature=0, repetition_penalty=1.4, presence_penalty=0.5),
    ):
        for prompt in PROMPTS[:2]:
            request = ask(prompt, max_tokens=40, sampling=sampling)
            assert told(alone(drafted, request)) == told(alone(plain, request))


def test_a_draft_draws_like_its_model(twin: Bench) -> None:
    answer = twin.ask(ask(max_tokens=80, sampling=Sampling(temperature=0.9, seed=1)))
    until_guessing(twin)
    run = decoder(twin)._run
    assert run is not None
    twin.run(answer)
    assert run.guessed > 9
    assert run.right / run.guessed > 0.8


def test_log_probabilities_are_those_of_the_model(plain: Bench, drafted: Bench) -> None:
    request = ask(max_tokens=30, sampling=NO_END, logprobs=3)
    one, other = (
        [entry for delta in alone(bench, request).deltas for entry in delta.logprobs]
        for bench in (plain, drafted)
    )
    assert [entry.token for entry in one] == [entry.token for entry in other]
    assert [e.logprob for e in one] == pytest.approx([e.logprob for e in other], abs=1e-4)
    assert [[c.token for c in e.top] for e in one] == [[c.token for c in e.top] for e in other]


def test_answers_of_a_given_form_stay_in_the_batch(plain: Bench, drafted: Bench) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 9}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = JsonSchema(schema=json.dumps(schema).encode())
    silent = Sampling(temperature=0, logit_bias={SPECIAL.index("<think>"): -1000.0})
    request = ask(max_tokens=100, constraint=form, sampling=silent)
    answer = drafted.ask(request)
    while not answer.ended:
        drafted.step()
        assert decoder(drafted)._run is None
    assert set(json.loads(answer.text)) == {"a"}
    assert told(answer) == told(alone(plain, request))


def test_another_request_joins_and_leaves(plain: Bench, drafted: Bench) -> None:
    long, short = (
        ask("Ping", max_tokens=120, sampling=NO_END),
        ask(LONG, max_tokens=12, sampling=NO_END),
    )
    first = drafted.ask(long)
    until_guessing(drafted)
    drafted.step()
    batch = decoder(drafted)._batch._batch
    before = batch.prompt_tokens
    run = decoder(drafted)._run
    assert run is not None
    row = run.row
    second = drafted.ask(short)
    gained: list[int] = []
    while not second.ended:
        had = len(row.decoded)
        drafted.step()
        gained.append(len(row.decoded) - had)
        assert decoder(drafted)._run is None
    assert gained == [0, *[1] * (len(gained) - 1)], "the first goes on beside the second"
    assert second.usage is not None
    assert batch.prompt_tokens - before == second.usage.prompt_tokens - 1, "nothing twice"
    until_guessing(drafted)
    drafted.run()
    assert told(first) == told(alone(plain, long))
    assert told(second) == told(alone(plain, short))


def test_many_join_at_any_moment(plain: Bench, drafted: Bench) -> None:
    requests = [
        ask(f"{PROMPTS[i % 4]} {i}", max_tokens=5 + 9 * (i % 5), sampling=NO_END) for i in range(12)
    ]
    answers = []
    for number, request in enumerate(requests):
        answers.append(drafted.ask(request))
        for _ in range(1 + number % 7):
            drafted.step()
    drafted.run()
    for answer, request in zip(answers, requests, strict=True):
        assert told(answer) == told(alone(plain, request))


def test_one_begins_as_another_ends(plain: Bench, drafted: Bench) -> None:
    """The last token of the one is not taken for the first of the other."""
    for tokens in (1, 2, 3):
        first = ask("Ping", max_tokens=tokens, sampling=NO_END)
        second = ask(f"Pong {tokens}", max_tokens=20, sampling=NO_END)
        one = drafted.ask(first)
        drafted.step()
        two = drafted.ask(second)
        drafted.run()
        assert told(one) == told(alone(plain, first))
        assert told(two) == told(alone(plain, second))


def test_a_cancelled_answer_leaves_its_cache(plain: Bench, drafted: Bench) -> None:
    answer = drafted.ask(ask(LONG, max_tokens=200, sampling=NO_END))
    until_guessing(drafted)
    for _ in range(5):
        drafted.step()
    usage = drafted.engine.cancel(drafted.id_of(answer))
    assert usage is not None
    assert usage.completion_tokens > 5
    assert not drafted.engine.busy
    assert decoder(drafted)._run is None
    again = ask(LONG, max_tokens=30, sampling=NO_END)
    second = alone(drafted, again)
    assert told(second) == told(alone(plain, again))
    assert second.usage is not None
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1


def test_the_whole_answer_is_kept_for_the_next_turn(plain: Bench, drafted: Bench) -> None:
    first = tuple(range(20, 60)) * 4
    cached, answers = [], []
    for bench in (plain, drafted):
        asked = Generate(lease="l", prompt=first, max_tokens=40, sampling=NO_END)
        bench.ask(asked)
        row = bench.engine._open._waiting[0]  # type: ignore[attr-defined]
        bench.run()
        told_before = (*row.prompt, *row.decoded, 30)
        following = bench.ask(msgspec.structs.replace(asked, prompt=told_before, max_tokens=30))
        bench.run()
        assert following.usage is not None
        cached.append(following.usage.cached_tokens)
        answers.append(told(following))
    assert answers[0] == answers[1]
    assert cached[0] == len(first) + 40
    assert cached[1] in {cached[0], cached[0] - 1}, "the last token need not be computed"


def test_a_draft_with_a_shorter_context_stops_guessing(
    plain: Bench, folders: dict[str, Path], tmp_path: Path
) -> None:
    short = tmp_path / "short"
    shutil.copytree(folders["twin"], short)
    config = json.loads((short / "config.json").read_text())
    write_json(short / "config.json", {**config, "max_position_embeddings": 80})
    bench = opened({**folders, "short": short}, "short")
    request = ask("Ping", max_tokens=100, sampling=NO_END)
    answer = bench.ask(request)
    until_guessing(bench)
    run = decoder(bench)._run
    bench.run()
    assert run is not None
    assert 70 < len(run.content) <= 80
    assert told(answer) == told(alone(plain, request))
    bench.engine.close()


def test_put_back_for_want_of_room(folders: dict[str, Path]) -> None:
    requests = [ask(prompt, max_tokens=280, sampling=NO_END) for prompt in PROMPTS[:3]]
    texts = []
    for draft in (None, "twin", "stranger"):
        bench = opened(folders, draft, kv_tokens=1024, rows_max=3)
        answers = [bench.ask(requests[0])]
        for _ in range(20):
            bench.step()
        answers += [bench.ask(request) for request in requests[1:]]
        bench.run()
        texts.append([told(answer) for answer in answers])
        bench.engine.close()
    assert texts[0] == texts[1] == texts[2]


def test_the_drafts_cache_gives_way(twin: Bench) -> None:
    alone(twin, ask(LONG, max_tokens=30, sampling=NO_END))
    draft = decoder(twin)._draft
    assert draft.nbytes > 0, "the next turn goes on from it"
    twin.engine.trim()
    assert draft.nbytes == 0
    alone(twin, ask(LONG, max_tokens=30, sampling=NO_END))
    long = draft.nbytes
    alone(twin, ask("Ping", max_tokens=30, sampling=NO_END))
    assert 0 < draft.nbytes < long, "what another conversation left is not held"


def test_all_that_is_kept_stays_within_the_allowance(folders: dict[str, Path]) -> None:
    allowed = 1 << 20
    bench = opened(folders, "twin", kv_bytes=allowed)
    for number in range(6):
        alone(bench, ask(f"{number} {LONG}", max_tokens=40, sampling=NO_END))
        found = decoder(bench)
        assert found._draft.nbytes + found._batch._store.nbytes <= allowed  # type: ignore[union-attr]
    bench.engine.close()


def test_a_failure_of_the_draft_ends_its_row_and_no_other(twin: Bench) -> None:
    answer = twin.ask(ask(max_tokens=100, sampling=NO_END))
    until_guessing(twin)

    class Broken:
        def __call__(self, *_args: Any, **_more: Any) -> Any:
            raise RuntimeError("the draft broke")

    decoder(twin)._draft._model = Broken()
    twin.run(answer)
    assert answer.fail is not None
    assert "the draft broke" in answer.fail.fault.message
    assert alone(twin, ask(max_tokens=30, sampling=NO_END)).done is not None


def test_a_draft_that_is_mostly_wrong_rests(folders: dict[str, Path], plain: Bench) -> None:
    bench = opened(folders, "stranger", free=False)
    found, guessing = decoder(bench), []
    request = ask("Ping", max_tokens=150, sampling=NO_END)
    answer = bench.ask(request)
    while not answer.ended:
        guessing.append(found._run is not None)
        bench.step()
    after = guessing[guessing.index(True) :]
    assert ROUNDS <= after.index(False) <= ROUNDS + 1
    rest = after[after.index(False) :]
    assert REST_TOKENS <= rest.index(True) < REST_TOKENS + 3, "then the draft reads, and guesses"
    assert told(answer) == told(alone(plain, request))
    bench.engine.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_model_and_its_packed_twin() -> None:
    """SmolLM2 in float32, guessed for by itself in 4 bits."""
    folders = {"model": model_path("smollm2-135m-f32"), "draft": model_path("smollm2-135m-4bit")}
    plain, drafted = opened(folders, None), opened(folders, "draft")
    for sampling in (Sampling(temperature=0), Sampling(temperature=0.7, seed=11)):
        for prompt in PROMPTS[:2]:
            request = ask(prompt, max_tokens=20, sampling=sampling)
            assert told(alone(drafted, request)) == told(alone(plain, request))
    for bench in (plain, drafted):
        bench.engine.close()
