"""What requests may ask of an answer beyond its text, of every engine that generates."""

import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from mlx_lm import load as lm_load

from daemon.wire.data import (
    ChatMessage,
    CountTokens,
    Embed,
    Generate,
    Sampling,
    TextPart,
    ToolCall,
)
from daemon.wire.errors import Code, MlxdError
from daemon.wire.forms import AnyJson, JsonSchema, Regex
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.base import Engine
from tests.contract.bench import NO_END, PROMPTS, Answer, Bench, alone, ask, begin
from tests.contract.tiny import SPECIAL, build_text_model, build_vision_model

KINDS = ("text", "vision")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["red", "blue"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["C", "F"]}},
            "required": ["unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
THINK = SPECIAL.index("<think>")
UNTHINK = SPECIAL.index("</think>")
CLOSING_BRACE = len(SPECIAL) + ord("}") - ord("!")
NO_THOUGHT = Sampling(temperature=0, logit_bias={THINK: -1000.0})
"""Random weights would else think for ever, which is free."""
NO_THOUGHT_NO_END = Sampling(
    temperature=0, logit_bias={THINK: -1000.0, SPECIAL.index("<|im_end|>"): -1000.0}
)
ASCII = Sampling(
    temperature=0,
    logit_bias={
        token: -1000.0
        for token in range(len(SPECIAL) + 256)
        if not len(SPECIAL) <= token <= len(SPECIAL) + ord("~") - ord("!")
    },
)
"""Every token is a letter: random weights else write broken UTF-8, which no text spells."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "text": build_text_model(root / "text"),
        "vision": build_vision_model(root / "vision"),
    }


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(folders: dict[str, Path], kind: str) -> Iterator[Bench]:
    engine: Engine = REGISTRY[kind]()
    told = begin(folders[kind], kind)
    engine.load(told, lambda _done, _total: None)
    yield Bench(engine, told)
    engine.close()


def visible(answer: Answer) -> str:
    return "".join(delta.text for delta in answer.deltas)


def calls(answer: Answer) -> list[ToolCall]:
    return [call for delta in answer.deltas for call in delta.tool_calls]


# --- log probabilities -----------------------------------------------------------


def test_the_tokens_of_log_probabilities_spell_the_text(bench: Bench) -> None:
    answer = alone(bench, ask(logprobs=3, max_tokens=40, sampling=ASCII))
    entries = [entry for delta in answer.deltas for entry in delta.logprobs]
    spelled = b"".join(entry.token for entry in entries).decode()
    assert spelled == visible(answer) != ""
    for entry in entries:
        values = [candidate.logprob for candidate in entry.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert values[0] == entry.logprob <= 0, "greedy takes the likeliest"
        assert entry.top[0].token == entry.token


def test_log_probabilities_stop_where_the_visible_text_does(bench: Bench) -> None:
    whole = visible(alone(bench, ask(max_tokens=40, sampling=ASCII)))
    answer = alone(bench, ask(logprobs=0, max_tokens=40, stop=(whole[7:9],), sampling=ASCII))
    entries = [entry for delta in answer.deltas for entry in delta.logprobs]
    spelled = b"".join(entry.token for entry in entries).decode()
    assert spelled == visible(answer) == whole[: whole.index(whole[7:9])]
    assert all(entry.top == () for entry in entries)


@pytest.mark.parametrize("kind", ["text"])
def test_log_probabilities_are_the_models(bench: Bench, folders: dict[str, Path]) -> None:
    prompt = tuple(range(30, 50))
    request = Generate(
        lease="l", prompt=prompt, max_tokens=6, logprobs=2, sampling=Sampling(temperature=0)
    )
    beside = bench.ask(ask(max_tokens=20))
    answer = alone(bench, request)
    bench.run(beside)
    model, tokenizer = lm_load(str(folders["text"]))[:2]
    tokens = list(prompt)
    for entry in (entry for delta in answer.deltas for entry in delta.logprobs):
        logits = model(mx.array([tokens]))[0, -1]
        expected = logits - mx.logsumexp(logits)
        best = mx.argsort(-expected)[:2].tolist()
        assert isinstance(best, list)
        assert entry.logprob == pytest.approx(expected[best[0]].item(), abs=1e-4)
        assert entry.top[1].logprob == pytest.approx(expected[best[1]].item(), abs=1e-4)
        tokens.append(best[0])  # type: ignore[arg-type]
    assert len(tokens) > len(prompt) + 3, tokenizer


def test_probabilities_of_all_that_may_come_make_one(bench: Bench) -> None:
    """Eight tokens may come, and eight alternatives are asked for."""
    few = range(len(SPECIAL) + 40, len(SPECIAL) + 48)
    bias = {token: -1000.0 for token in range(len(SPECIAL) + 256) if token not in few}
    for temperature in (0.0, 1.2):
        sampling = Sampling(temperature=temperature, seed=1, logit_bias=bias)
        answer = alone(bench, ask(logprobs=8, max_tokens=6, sampling=sampling))
        entries = [entry for delta in answer.deltas for entry in delta.logprobs]
        assert len(entries) == 6
        for entry in entries:
            assert sum(math.exp(one.logprob) for one in entry.top) == pytest.approx(1, abs=1e-4)
            assert entry.logprob in [one.logprob for one in entry.top]


def test_sampled_rows_get_the_log_probability_of_what_was_drawn(bench: Bench) -> None:
    drawn = Sampling(temperature=1.5, seed=4)
    answer = alone(bench, ask(logprobs=1, max_tokens=30, sampling=drawn))
    entries = [entry for delta in answer.deltas for entry in delta.logprobs]
    assert any(entry.logprob < entry.top[0].logprob for entry in entries)
    assert all(math.isfinite(entry.logprob) for entry in entries)


# --- counting ----------------------------------------------------------------------


def test_a_count_is_what_a_request_would_have(bench: Bench) -> None:
    messages = tuple(
        ChatMessage(role=role, parts=(TextPart(text),))  # type: ignore[arg-type]
        for role, text in (("system", "Be brief."), ("user", PROMPTS[3]))
    )
    for tools in ((), (WEATHER,)):
        counted = bench.engine.count(CountTokens(lease="l", messages=messages, tools=tools))
        asked = Generate(lease="l", messages=messages, tools=tools, max_tokens=1)
        assert bench.engine.submit(50 + len(tools), asked) == counted > 20
        bench.engine.cancel(50 + len(tools))
    assert not bench.engine.busy


def test_other_kinds_of_work_are_refused(bench: Bench) -> None:
    with pytest.raises(MlxdError, match="embeddings model"):
        bench.engine.submit(1, Embed(lease="l", inputs=("x",)))


# --- structured answers --------------------------------------------------------------


def schema(value: Any) -> JsonSchema:
    return JsonSchema(schema=json.dumps(value).encode())


def test_an_answer_follows_its_schema_beside_free_ones(bench: Bench) -> None:
    free_alone = [alone(bench, ask(prompt)) for prompt in PROMPTS[:2]]
    drawn = msgspec.structs.replace(NO_THOUGHT, temperature=1.0, seed=3)
    requests = [
        ask(PROMPTS[0]),
        ask("Ping", constraint=schema(SCHEMA), max_tokens=100, sampling=NO_THOUGHT),
        ask(PROMPTS[1]),
        ask("Ping", constraint=schema(SCHEMA), max_tokens=100, sampling=drawn),
    ]
    answers = [bench.ask(request) for request in requests]
    bench.run(*answers)
    for answer in (answers[1], answers[3]):
        assert answer.done is not None
        assert answer.done.finish_reason == "stop"
        value = json.loads(visible(answer))
        assert set(value) == {"name", "count"}
        assert value["name"] in {"red", "blue"}
        assert isinstance(value["count"], int)
        assert value["count"] <= 99
    assert [answers[0].text, answers[2].text] == [answer.text for answer in free_alone]


def test_an_answer_matches_its_regex_beside_free_ones(bench: Bench) -> None:
    free_alone = alone(bench, ask(PROMPTS[0]))
    form = ask("Ping", constraint=Regex("[a-c]{3}/[0-9]"), max_tokens=100, sampling=NO_THOUGHT)
    answers = [bench.ask(ask(PROMPTS[0])), bench.ask(form)]
    bench.run(*answers)
    assert re.fullmatch("[a-c]{3}/[0-9]", visible(answers[1]))
    assert answers[0].text == free_alone.text


def test_what_forms_need_is_made_when_nothing_is_decoded(bench: Bench) -> None:
    generator: Any = bench.engine._generator  # type: ignore[attr-defined]
    assert generator._vocabulary._made is None
    alone(bench, ask(PROMPTS[0]))
    for thread in threading.enumerate():
        if thread.name == "vocabulary":
            thread.join()
    assert generator._vocabulary._made is not None


def test_any_json_is_an_object(bench: Bench) -> None:
    end = Sampling(temperature=0, logit_bias={CLOSING_BRACE: 50.0, THINK: -1000.0})
    answer = alone(bench, ask(constraint=AnyJson(), max_tokens=100, sampling=end))
    assert answer.done is not None
    assert answer.done.finish_reason == "stop"
    assert isinstance(json.loads(visible(answer)), dict)


def test_thinking_before_a_structured_answer_is_free(bench: Bench) -> None:
    """The model opens and closes its thinking by itself; a bias makes this one do it."""
    think = Sampling(temperature=0, logit_bias={THINK: 1000.0})
    answer = alone(
        bench,
        ask(
            constraint=schema(SCHEMA),
            max_tokens=200,
            sampling=think,
            reasoning_tokens_max=7,
        ),
    )
    assert set(json.loads(visible(answer))) == {"name", "count"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 1 + 7 + 1 + len(visible(answer))
    assert answer.done is not None
    assert answer.done.finish_reason == "stop"


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ([1], "object"),
        ({"type": "string", "pattern": "("}, "regex"),
        ({"not": {"type": "object"}}, "not"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(bench: Bench, value: Any, match: str) -> None:
    with pytest.raises(MlxdError, match=match) as caught:
        bench.engine.submit(1, ask(constraint=schema(value)))
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "constraint.schema"
    assert not bench.engine.busy


# --- tools -----------------------------------------------------------------------------


def test_a_call_that_is_required_is_made(bench: Bench) -> None:
    request = ask(
        tools=(WEATHER, CLOCK),
        call_one_of=("get_weather",),
        tool_calls_max=1,
        max_tokens=200,
        sampling=NO_THOUGHT,
    )
    answer = alone(bench, request)
    (call,) = calls(answer)
    assert call.name == "get_weather"
    assert json.loads(call.arguments) in ({"unit": "C"}, {"unit": "F"})
    assert visible(answer) == ""
    assert answer.done is not None
    assert answer.done.finish_reason == "tool_calls"
    assert not bench.engine.busy


def test_several_calls_may_follow_one_another(bench: Bench) -> None:
    request = ask(
        tools=(WEATHER, CLOCK),
        call_one_of=("get_weather",),
        tool_calls_max=2,
        max_tokens=300,
        sampling=NO_THOUGHT_NO_END,
    )
    assert [call.name for call in calls(alone(bench, request))] == ["get_weather"] * 2


def test_a_tool_that_is_not_there_cannot_be_required(bench: Bench) -> None:
    with pytest.raises(MlxdError, match="get_rich") as caught:
        bench.engine.submit(1, ask(tools=(WEATHER,), call_one_of=("get_rich",)))
    assert caught.value.fault.field == "call_one_of"
    with pytest.raises(MlxdError) as caught:
        bench.engine.submit(1, ask(call_one_of=("get_weather",)))
    assert caught.value.fault.field == "tools"


def test_strict_tools_bind_the_calls_and_nothing_else(bench: Bench) -> None:
    """Free text, then a call that the bias brings about: its arguments follow the schema."""
    opening = SPECIAL.index("<tool_call>")
    bias = {opening: 1000.0, SPECIAL.index("<|im_end|>"): -1000.0}
    request = ask(
        tools=(WEATHER,),
        strict_tools=("get_weather",),
        tool_calls_max=1,
        max_tokens=200,
        sampling=Sampling(temperature=0, logit_bias=bias),
    )
    (call,) = calls(alone(bench, request))
    assert json.loads(call.arguments) in ({"unit": "C"}, {"unit": "F"})
    free = ask(tools=(WEATHER,), strict_tools=("get_weather",), max_tokens=24)
    assert alone(bench, free).text == alone(bench, ask(tools=(WEATHER,), max_tokens=24)).text


THINKS_A_LITTLE = {THINK: 6.0, UNTHINK: 3.0, SPECIAL.index("<tool_call>"): 3.0}
ENDS_EARLY = {SPECIAL.index("<|im_end|>"): 5.0}
FORMS: dict[str, dict[str, Any]] = {
    "call": {"tools": (WEATHER,), "call_one_of": ("get_weather",), "tool_calls_max": 1},
    "schema": {"constraint": JsonSchema(schema=json.dumps(SCHEMA).encode())},
    "either": {
        "constraint": JsonSchema(schema=json.dumps(SCHEMA).encode()),
        "tools": (WEATHER,),
        "tool_calls_max": 1,
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variables", [None, {"enable_thinking": False}])
def test_only_max_tokens_cuts_a_form_short(
    bench: Bench, form: str, variables: dict[str, bool] | None
) -> None:
    """Models that open thinking, call a tool within it, and end the answer anywhere."""
    answers = []
    for seed in range(16):
        sampling = Sampling(temperature=1, seed=seed, logit_bias={**THINKS_A_LITTLE, **ENDS_EARLY})
        bound: dict[str, Any] = {"reasoning_tokens_max": 20} if seed % 2 else {}
        asked = ask(
            max_tokens=150, template_kwargs=variables, sampling=sampling, **FORMS[form], **bound
        )
        answers.append(bench.ask(asked))
    bench.run(*answers)
    whole = [a for a in answers if a.done is not None and a.done.finish_reason != "length"]
    assert len(whole) > len(answers) // 2
    for answer in whole:
        if form != "schema" and calls(answer):
            assert json.loads(calls(answer)[0].arguments) in ({"unit": "C"}, {"unit": "F"})
        else:
            assert form != "call"
            assert set(json.loads(visible(answer))) == {"name", "count"}
    thought = any(delta.reasoning for answer in answers for delta in answer.deltas)
    assert thought == (variables is None)


# --- thinking ----------------------------------------------------------------------------


def test_thinking_ends_with_its_budget(bench: Bench) -> None:
    bias = {THINK: 1000.0, UNTHINK: -1000.0, SPECIAL.index("<|im_end|>"): -1000.0}
    prompt = tuple(range(30, 60))
    for tokens_max in (0, 5):
        request = Generate(
            lease="l",
            prompt=(*prompt, THINK),
            max_tokens=20,
            reasoning_tokens_max=tokens_max,
            sampling=Sampling(temperature=0, logit_bias={**bias, THINK: -1000.0}),
        )
        answer = alone(bench, request)
        reasoned = [delta for delta in answer.deltas if delta.reasoning]
        assert visible(answer) != ""
        assert max((delta.tokens for delta in reasoned), default=0) <= tokens_max + 1


# --- order -------------------------------------------------------------------------------


def test_priority_goes_first_among_those_that_wait(folders: dict[str, Path], kind: str) -> None:
    engine = REGISTRY[kind]()
    told = begin(folders[kind], kind, rows_max=1)
    engine.load(told, lambda _done, _total: None)
    bench = Bench(engine, told)
    running = bench.ask(ask(max_tokens=30, sampling=NO_END))
    bench.step()
    answers = [bench.ask(ask(max_tokens=3, priority=priority)) for priority in (0, -1, 1, 0, 1)]
    ended: list[int] = []
    while len(ended) < len(answers):
        bench.step()
        ended += [i for i, a in enumerate(answers) if a.ended and i not in ended]
    assert running.ended
    assert ended == [2, 4, 0, 3, 1]
    engine.close()
