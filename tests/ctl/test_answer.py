"""Summing up one request: counts from the engine, times from here."""

from ctl.answer import Answer, Outcome, Timing, outcome_shape, stats_line, timing_of
from daemon.wire import data as d

USAGE = d.Usage(prompt_tokens=1312, completion_tokens=42)


def outcome(done: d.Done, **timing: float | None) -> Outcome:
    times = {"load_ms": 0, "ttft_ms": 180, "tokens_per_s": 95.2, "total_ms": 620} | timing
    return Outcome(model="m", answer=Answer(), done=done, timing=Timing(**times))  # type: ignore[arg-type]


def test_speed_counts_the_tokens_after_the_first_delta() -> None:
    answer = Answer()
    answer.take(d.Delta(text="a", tokens=2), 1500)
    answer.take(d.Delta(text="b", tokens=3), 1600)
    answer.take(d.Delta(text="c", tokens=12), 2500)

    timing = timing_of(answer, 70, 1000, 2600)

    assert timing == Timing(load_ms=70, ttft_ms=500, tokens_per_s=10.0, total_ms=1600)
    assert answer.text == "abc"


def test_speed_is_not_made_up() -> None:
    one, none = Answer(), Answer()
    one.take(d.Delta(text="all at once", tokens=9), 1500)

    assert timing_of(one, 0, 1000, 1500).tokens_per_s is None
    assert timing_of(none, 0, 1000, 1500) == Timing(
        load_ms=0, ttft_ms=None, tokens_per_s=None, total_ms=500
    )


def test_stats_word_for_word() -> None:
    assert stats_line(outcome(d.Done(finish_reason="stop", usage=USAGE))) == (
        "prompt 1,312 tokens · answer 42 tokens, ended by the model · first after 180 ms · "
        "95.2 tok/s · 620 ms in all"
    )
    assert stats_line(
        outcome(
            d.Done(finish_reason="length", usage=USAGE),
            ttft_ms=None,
            tokens_per_s=None,
            load_ms=3200,
        )
    ) == (
        "prompt 1,312 tokens · answer 42 tokens, ended by the token limit · 620 ms in all · "
        "after a wait of 3.2 s for the model"
    )


def test_a_tool_call_is_in_the_shape() -> None:
    answer = Answer()
    call = d.ToolCall(id="c1", name="get_weather", arguments='{"city":"Tokyo"}')
    answer.take(d.Delta(tool_calls=(call,), tokens=7), 1)
    done = d.Done(finish_reason="tool_calls", usage=USAGE)
    shape = outcome_shape(
        Outcome(model="m", answer=answer, done=done, timing=timing_of(answer, 0, 0, 1))
    )

    assert shape["tool_calls"] == (
        {"id": "c1", "name": "get_weather", "arguments": '{"city":"Tokyo"}'},
    )
    assert shape["finish_reason"] == "tool_calls"
