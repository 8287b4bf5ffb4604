"""Splitting: the same result however the text is cut, nothing leaked, nothing lost."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.worker.engines.splitting import Markers, Segment, Splitter, State

BOTH = Markers(think=("<think>", "</think>"), tool=("<tool_call>", "</tool_call>"))


def split(
    chunks: list[str], markers: Markers, stops: list[str], state: State = "answer"
) -> tuple[list[tuple[State, str]], str | None, int]:
    """Adjacent segments of one state joined, the stop text, and how many calls closed."""
    splitter = Splitter(markers, stops, state)
    segments: list[Segment] = []
    for chunk in chunks:
        segments += splitter.feed(chunk)
    segments += splitter.finish()
    closed = sum(segment.state == "tool" and segment.closed for segment in segments)
    joined: list[tuple[State, str]] = []
    for name, group in itertools.groupby(segments, key=lambda s: s.state):
        joined.append((name, "".join(segment.text for segment in group)))
    return [(name, text) for name, text in joined if text], splitter.stop_text, closed


CASES = [
    ("plain text", [], [("answer", "plain text")], None, 0),
    ("x <", [], [("answer", "x <")], None, 0),
    ("a<b and <thin", [], [("answer", "a<b and <thin")], None, 0),
    ("<think>hm</think>yes", [], [("reasoning", "hm"), ("answer", "yes")], None, 0),
    ("<think>never closed", [], [("reasoning", "never closed")], None, 0),
    ("<think><think>hm</think></think>yes", [], [("reasoning", "hm"), ("answer", "yes")], None, 0),
    ("before STOP after", ["STOP"], [("answer", "before ")], "STOP", 0),
    ("before STO", ["STOP"], [("answer", "before STO")], None, 0),
    ("SSTOP", ["STOP"], [("answer", "S")], "STOP", 0),
    ("aab", ["ab"], [("answer", "a")], "ab", 0),
    ("abc", ["bc", "abc"], [], "abc", 0),
    ("abcd", ["abcd", "bc"], [("answer", "a")], "bc", 0),
    ("<think>I STOP</think>", ["STOP"], [("reasoning", "I ")], "STOP", 0),
    ("a<tool_call>{}</tool_call>", [], [("answer", "a"), ("tool", "{}")], None, 1),
    ("<tool_call>{}</tool_call>b", [], [("tool", "{}"), ("answer", "b")], None, 1),
    ("<tool_call>a STOP", ["STOP"], [("tool", "a ")], "STOP", 1),
    (
        "<tool_call>1</tool_call><tool_call>1</tool_call>",
        [],
        [("tool", "1"), ("tool", "1")],
        None,
        2,
    ),
    ("<tool_call>cut off", [], [("tool", "cut off")], None, 1),
    ("</think>stray", [], [("answer", "stray")], None, 0),
    ("<think>hm<tool_call>x</tool_call>", [], [("reasoning", "hm"), ("tool", "x")], None, 1),
]


WHOLE = [
    ("a</think>b<think>c<tool_call>d", [("answer", "a</think>b<think>c<tool_call>d")]),
    ("<think>hm</think>\n{<think>", [("reasoning", "hm"), ("answer", "\n{<think>")]),
    ("\n<tool_call>x</tool_call>y", [("answer", "\n"), ("tool", "x"), ("answer", "y")]),
]


@pytest.mark.parametrize(("text", "expected"), WHOLE)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_answer_in_one_piece_has_no_markers_within(
    text: str, expected: list[tuple[State, str]], size: int
) -> None:
    splitter = Splitter(BOTH, [], whole=True)
    segments = [s for i in range(0, len(text), size) for s in splitter.feed(text[i : i + size])]
    joined: list[tuple[State, str]] = []
    for name, group in itertools.groupby([*segments, *splitter.finish()], key=lambda s: s.state):
        joined.append((name, "".join(segment.text for segment in group)))
    assert [(name, part) for name, part in joined if part] == expected


@pytest.mark.parametrize(("text", "stops", "expected", "stop", "calls"), CASES)
def test_every_cut_gives_the_same(
    text: str, stops: list[str], expected: list[tuple[State, str]], stop: str | None, calls: int
) -> None:
    for cut in range(len(text) + 1):
        assert split([text[:cut], text[cut:]], BOTH, stops) == (expected, stop, calls)
    assert split(list(text), BOTH, stops) == (expected, stop, calls)


def test_reasoning_that_the_template_opened() -> None:
    found = split(["hm</think>yes"], BOTH, [], state="reasoning")
    assert found[0] == [("reasoning", "hm"), ("answer", "yes")]


def test_calls_without_a_closing_marker_last_to_the_end() -> None:
    markers = Markers(tool=("[TOOL_CALLS]", ""))
    assert split(["a[TOOL", "_CALLS]f{}"], markers, []) == (
        [("answer", "a"), ("tool", "f{}")],
        None,
        1,
    )


def test_text_is_given_out_as_soon_as_it_is_certain() -> None:
    splitter = Splitter(BOTH, ["STOP"])
    assert splitter.feed("hello S") == [Segment("answer", "hello ")]
    assert splitter.feed("o what") == [Segment("answer", "So what", start=6)]


def test_nothing_follows_a_stop_text() -> None:
    splitter = Splitter(Markers(), ["x"])
    splitter.feed("axb")
    assert (splitter.feed("more"), splitter.finish()) == ([], [])


ALPHABET = st.text(alphabet="ab<>/", max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    text=ALPHABET,
    stops=st.lists(st.text(alphabet="ab<", min_size=1, max_size=3), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_stop_texts_against_a_plain_search(text: str, stops: list[str], cuts: list[int]) -> None:
    """The oracle: the first end of any stop text; of those, the longest."""
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in itertools.pairwise(bounds)]
    found, stop, _ = split(chunks, Markers(), stops)
    ends = [text.find(s) + len(s) for s in stops if s in text]
    if not ends:
        assert (stop, "".join(t for _, t in found)) == (None, text)
        return
    end = min(ends)
    expected = max((s for s in stops if text[:end].endswith(s)), key=len)
    assert stop == expected
    assert "".join(t for _, t in found) == text[: end - len(expected)]
