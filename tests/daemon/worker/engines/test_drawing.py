"""What decides a row's token is checked as a whole before the row exists."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_tokenizer

from daemon.wire.data import ChatMessage, Generate, Sampling, TextPart
from daemon.wire.errors import Code, MlxdError
from daemon.wire.forms import AnyJson
from daemon.worker.engines.constraint import Guard, Vocabulary
from daemon.worker.engines.drawing import Drawing, make_drawing
from daemon.worker.engines.sampling import GREEDY
from daemon.worker.engines.thinking import ThinkingBudget
from tests.contract.tiny import SPECIAL, build_text_model

THINK = SPECIAL.index("<think>")
THINKLESS = tuple(f"<|{i}|>" if "think" in name else name for i, name in enumerate(SPECIAL))


def tokenizer_of(folder: Path, special: tuple[str, ...] = SPECIAL) -> Any:
    return load_tokenizer(build_text_model(folder, special=special), eos_token_ids=[2])


def draw(tokenizer: Any, prompt: tuple[int, ...] = (20, 21), **fields: Any) -> Drawing:
    talk = (ChatMessage(role="user", parts=(TextPart("x"),)),)
    request = Generate(lease="l", messages=talk, **fields)
    vocabulary = Vocabulary(tokenizer, len(SPECIAL) + 256)
    return make_drawing(request, list(prompt), tokenizer, {}, vocabulary)


def test_a_plain_request_needs_no_processors(tmp_path: Path) -> None:
    drawing = draw(tokenizer_of(tmp_path))
    assert drawing.processors() == []
    assert drawing.sampler(0) is GREEDY
    assert drawing.error == ""


def test_the_constraint_comes_after_bias_and_the_budget_last(tmp_path: Path) -> None:
    drawing = draw(
        tokenizer_of(tmp_path),
        constraint=AnyJson(),
        reasoning_tokens_max=3,
        sampling=Sampling(logit_bias={20: 1.0}),
    )
    bias, guard, budget = drawing.processors()
    assert isinstance(guard, Guard)
    assert isinstance(budget, ThinkingBudget)
    assert bias(mx.array([1]), mx.zeros((1, 30)))[0, 20].item() == 1.0
    assert drawing.processors()[1] is not guard, "a row that is put in again begins anew"


@pytest.mark.parametrize("variables", [None, {"enable_thinking": False}])
def test_thinking_that_the_request_turned_off_stays_off(
    tmp_path: Path, variables: dict[str, Any] | None
) -> None:
    drawing = draw(tokenizer_of(tmp_path), constraint=AnyJson(), template_kwargs=variables)
    (guard,) = drawing.processors()
    logits = guard(mx.array([20, 21]), mx.zeros((1, len(SPECIAL) + 256)))
    assert (logits[0, THINK].item() == 0.0) == (variables is None)


def test_the_bound_of_thinking_does_not_cut_a_call_short(tmp_path: Path) -> None:
    """The call is spelled, which only the guard sees."""
    tokenizer = tokenizer_of(tmp_path)
    tools = ({"type": "function", "function": {"name": "f"}},)
    drawing = draw(
        tokenizer,
        (20, THINK),
        tools=tools,
        call_one_of=("f",),
        reasoning_tokens_max=len("<tool_call>") + 1,
    )
    tokens = [20, THINK]
    letters = tokenizer.encode('<tool_call>\n{"name": "f"', add_special_tokens=False)
    spelled = [len(SPECIAL) + ord(letter) - ord("!") for letter in "<tool_call>"]
    for token in (*spelled, *letters[1:]):
        logits = mx.zeros((1, len(SPECIAL) + 256))
        for process in drawing.processors():
            logits = process(mx.array(tokens), logits)
        assert logits[0, token].item() == 0.0
        tokens.append(token)


@pytest.mark.parametrize("tokens_max", [-1, 5])
def test_a_budget_needs_a_model_that_thinks(tmp_path: Path, tokens_max: int) -> None:
    special = SPECIAL if tokens_max < 0 else THINKLESS
    with pytest.raises(MlxdError) as caught:
        draw(tokenizer_of(tmp_path, special), reasoning_tokens_max=tokens_max)
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.fault.field == "reasoning_tokens_max"
