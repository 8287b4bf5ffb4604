"""A budget of thinking, token by token."""

import mlx.core as mx
import pytest

from daemon.worker.engines.thinking import ThinkingBudget

START, END = (7,), (8, 9)


def forced(budget: ThinkingBudget, tokens: list[int]) -> int | None:
    """The one token that may come next; None if all may."""
    logits = mx.zeros((1, 12))
    after = budget(mx.array(tokens), logits)
    allowed = [i for i, value in enumerate(after[0].tolist()) if value == 0.0]  # type: ignore[arg-type]
    return allowed[0] if len(allowed) == 1 else None


@pytest.mark.parametrize("at_once", [False, True])
def test_thinking_that_the_prompt_opened_is_closed_in_time(*, at_once: bool) -> None:
    budget = ThinkingBudget(START, END, 2, 3, thinking=True)
    tokens = [1, 1, 7]
    answer = [2, 2, *END, 3, 3]
    expected = [None, None, 8, 9, None, None, None]
    if at_once:
        assert forced(budget, [*tokens, *answer[:2]]) == 8
        return
    for i, wanted in enumerate(expected):
        assert forced(budget, tokens + answer[:i]) == wanted


def test_thinking_that_ends_by_itself_is_left_alone() -> None:
    budget = ThinkingBudget(START, END, 3, 0, thinking=False)
    answer = [1, 7, 2, 8, 9, 4, 4, 4, 4]
    assert [forced(budget, answer[: i + 1]) for i in range(len(answer))] == [None] * 9


def test_a_second_thought_has_a_budget_of_its_own() -> None:
    budget = ThinkingBudget(START, END, 1, 0, thinking=False)
    answer = [7, 2, 8, 9, 7, 2]
    found = [forced(budget, answer[: i + 1]) for i in range(len(answer))]
    assert found == [None, 8, 9, None, None, 8]


def test_a_call_ends_the_thinking() -> None:
    budget = ThinkingBudget(START, END, 3, 0, thinking=True, call=(5, 6))
    answer = [2, 5, 6, 2, 2, 2]
    assert [forced(budget, answer[: i + 1]) for i in range(len(answer))] == [None] * 6


def test_what_has_a_form_is_no_thinking() -> None:
    form = iter([False, True, True, False, False])
    budget = ThinkingBudget(START, END, 2, 0, thinking=True, answering=lambda: next(form))
    answer = [2, 2, 2, 2, 2]
    assert [forced(budget, answer[: i + 1]) for i in range(len(answer))] == [None] * 5


def test_no_thinking_at_all() -> None:
    assert forced(ThinkingBudget(START, END, 0, 2, thinking=True), [1, 7]) == 8
