"""Chunks: large alone, and beside streams as large as their patience."""

from daemon.worker.engines.pace import (
    CHUNK_TOKENS_MAX,
    CHUNK_TOKENS_MIN,
    CHUNK_TOKENS_UNKNOWN,
    CROWD_MAX,
    STALL_S,
    Pace,
)


def learned(tokens_per_s: float, step_s: float) -> Pace:
    pace = Pace()
    for _ in range(50):
        pace.took(step_s, 2, 0)
        pace.took(step_s + 256 / tokens_per_s, 2, 256)
    return pace


def test_alone_a_chunk_is_the_largest_whatever_was_measured() -> None:
    assert Pace().chunk_tokens(0) == CHUNK_TOKENS_MAX
    assert learned(10, 1.0).chunk_tokens(0) == CHUNK_TOKENS_MAX


def test_beside_streams_nothing_is_known_at_first() -> None:
    assert Pace().chunk_tokens(1) == CHUNK_TOKENS_UNKNOWN


def test_a_chunk_takes_about_two_steps() -> None:
    # 100 ms a step and 1000 tokens a second: 200 ms are 200 tokens, and 128 is the power below.
    assert learned(1000, 0.1).chunk_tokens(3) == 128


def test_quick_steps_still_leave_a_chunk_some_time() -> None:
    assert learned(10_000, 0.001).chunk_tokens(1) == 128 <= 10_000 * STALL_S


def test_chunks_stay_within_their_bounds() -> None:
    assert learned(1e9, 0.1).chunk_tokens(1) == CHUNK_TOKENS_MAX
    assert learned(1, 0.01).chunk_tokens(1) == CHUNK_TOKENS_MIN


def test_several_that_join_may_stall_the_others_longer_than_one_but_not_for_ever() -> None:
    pace = learned(1000, 0.1)
    assert pace.chunk_tokens(1, joining=2) == 2 * pace.chunk_tokens(1, joining=1)
    assert pace.chunk_tokens(1, joining=100) == pace.chunk_tokens(1, joining=CROWD_MAX) == 512


def test_tiny_chunks_say_nothing_of_the_speed() -> None:
    pace = learned(1000, 0.1)
    for _ in range(50):
        pace.took(1.0, 2, 3)
    assert pace.chunk_tokens(3) == 128
