"""Answers as models write them, cut at every place: what clients read is always the same.

The texts are in ``tests/fixtures/answers``. Tool calls are read with mlx_lm's own parsers, one
set of texts for each of them. Whoever adds a parser is told by the first test.
"""

import importlib
import itertools
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx_lm.tool_parsers
import msgspec
import pytest

from daemon.worker.engines.output import Piece, TextOutput, ToolReader
from daemon.worker.engines.splitting import Markers, Splitter, State

ANSWERS = Path(__file__).parents[3] / "fixtures" / "answers"
PAIRS_CHARACTERS_MAX = 70
"""Texts up to this length are cut at all pairs of places as well."""

TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    },
)


class ToolCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    text: str
    calls: list[tuple[str, dict[str, Any]]]
    visible: str
    cut: bool = False


class ThinkingCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    text: str
    reasoning: str
    visible: str
    opened: bool = False


class ThinkingFamily(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    markers: tuple[str, str]
    cases: list[ThinkingCase]


class StopCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    text: str
    stops: list[str]
    visible: str
    stop: str | None


def read(name: str, kind: Any) -> Any:
    return msgspec.json.decode((ANSWERS / name).read_bytes(), type=kind)


TOOL_CASES: dict[str, list[ToolCase]] = read("tool_calls.json", dict[str, list[ToolCase]])
THINKING: dict[str, ThinkingFamily] = read("thinking.json", dict[str, ThinkingFamily])
STOPS: list[StopCase] = read("stops.json", list[StopCase])


class Chunks:
    """A detokenizer whose token i is the i-th chunk of a text."""

    def __init__(self, chunks: list[str]) -> None:
        self._chunks = chunks
        self.last_segment = ""

    def add_token(self, token: int) -> None:
        self.last_segment = self._chunks[token]

    def finalize(self) -> None:
        self.last_segment = ""


def cuts(text: str) -> Iterator[list[str]]:
    """The text whole, cut at every place, at all pairs of places if short, and into letters."""
    yield [text]
    yield list(text)
    places = range(1, len(text))
    for place in places:
        yield [text[:place], text[place:]]
    if len(text) <= PAIRS_CHARACTERS_MAX:
        for first, second in itertools.combinations(places, 2):
            yield [text[:first], text[first:second], text[second:]]


def answer(
    chunks: list[str],
    markers: Markers,
    stops: tuple[str, ...] = (),
    state: State = "answer",
    parser: Any = None,
    *,
    cut: bool = False,
) -> tuple[Piece, str | None]:
    """What all pieces of an answer come to, and the stop text that was met.

    Args:
        cut: Whether the answer ends for want of tokens.
    """
    reader = None
    if parser is not None:
        ends = (parser.tool_call_start, parser.tool_call_end)
        reader = ToolReader(parser.parse_tool_call, ends, TOOLS, "call")
    output = TextOutput(Chunks(chunks), Splitter(markers, stops, state), reader)
    piece = Piece()
    for token in range(len(chunks)):
        piece += output.feed(token)
        if output.ended:
            break
    return piece + output.finish(cut=cut), output.stop_text


def parser_of(name: str) -> Any:
    return importlib.import_module(f"mlx_lm.tool_parsers.{name}")


def test_every_parser_has_its_texts() -> None:
    there = {module.name for module in pkgutil.iter_modules(mlx_lm.tool_parsers.__path__)}
    assert set(TOOL_CASES) == there
    for parser, cases in TOOL_CASES.items():
        counts = [len(case.calls) for case in cases]
        assert 1 in counts, parser
        assert any(len(c.calls) == 2 and c.calls[0] == c.calls[1] for c in cases), parser


@pytest.mark.parametrize(
    ("parser", "case"),
    [
        pytest.param(parser, case, id=f"{parser}: {case.name}")
        for parser, cases in TOOL_CASES.items()
        for case in cases
    ],
)
def test_tool_calls(parser: str, case: ToolCase) -> None:
    module = parser_of(parser)
    markers = Markers(tool=(module.tool_call_start, module.tool_call_end))
    for chunks in cuts(case.text):
        piece, _ = answer(chunks, markers, parser=module, cut=case.cut)
        calls = [(call.name, json.loads(call.arguments)) for call in piece.tool_calls]
        assert (piece.text, calls) == (case.visible, case.calls), chunks
        assert len({call.id for call in piece.tool_calls}) == len(case.calls), chunks


@pytest.mark.parametrize(
    ("parser", "case"),
    [
        pytest.param(parser, cases[0], id=parser)
        for parser, cases in TOOL_CASES.items()
        if cases[0].calls
    ],
)
def test_a_call_after_thinking(parser: str, case: ToolCase) -> None:
    """Blank lines between thinking and a call are no text either."""
    module = parser_of(parser)
    ends = (module.tool_call_start, module.tool_call_end)
    markers = Markers(think=("<think>", "</think>"), tool=ends)
    for chunks in cuts(f"<think>hm <</think>\n\n{case.text}"):
        piece, _ = answer(chunks, markers, parser=module)
        assert (piece.reasoning, piece.text) == ("hm <", ""), chunks
        assert len(piece.tool_calls) == 1, chunks


@pytest.mark.parametrize(
    ("family", "case"),
    [
        pytest.param(name, case, id=f"{name}: {case.name}")
        for name, family in THINKING.items()
        for case in family.cases
    ],
)
def test_thinking(family: str, case: ThinkingCase) -> None:
    markers = Markers(think=THINKING[family].markers)
    state: State = "reasoning" if case.opened else "answer"
    for chunks in cuts(case.text):
        piece, _ = answer(chunks, markers, state=state)
        assert (piece.reasoning, piece.text) == (case.reasoning, case.visible), chunks


@pytest.mark.parametrize("case", STOPS, ids=lambda case: case.name)
def test_stop_texts(case: StopCase) -> None:
    """With markers beside them, which these texts do not hold whole."""
    both = Markers(think=("<think>", "</think>"), tool=("<tool_call>", "</tool_call>"))
    for markers in (Markers(), both):
        for chunks in cuts(case.text):
            piece, met = answer(chunks, markers, tuple(case.stops), parser=parser_of("json_tools"))
            assert (piece.text, met) == (case.visible, case.stop), chunks
