"""Tokens to pieces: tool calls whole, separate and never swallowed."""

import json
from typing import Any

import pytest

from daemon.wire.data import ToolCall
from daemon.worker.engines.output import Piece, TextOutput, ToolReader
from daemon.worker.engines.splitting import Markers, Splitter

TOOL = ("<tool_call>", "</tool_call>")


class Letters:
    """A tokenizer whose tokens are characters, two of which make one (an accent, say)."""

    def __init__(self) -> None:
        self._pending = ""
        self._new = ""

    @property
    def last_segment(self) -> str:
        new, self._new = self._new, ""
        return new

    def add_token(self, token: int) -> None:
        self._pending += chr(token)
        if self._pending != "~":
            self._new += self._pending
            self._pending = ""

    def finalize(self) -> None:
        self._new += self._pending
        self._pending = ""


def parse(text: str, _tools: Any) -> Any:
    return json.loads(text)


def run(text: str, *, tools: bool = True, stops: tuple[str, ...] = ()) -> tuple[Piece, TextOutput]:
    reader = ToolReader(parse, TOOL, [], "call_x") if tools else None
    markers = Markers(tool=TOOL if tools else None)
    output = TextOutput(Letters(), Splitter(markers, stops), reader)
    piece = Piece()
    for character in text:
        piece += output.feed(ord(character))
    return piece + output.finish(), output


def call(name: str) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"city": "Tōkyō"}}}}</tool_call>'


def test_identical_parallel_calls_stay_separate() -> None:
    piece, output = run("Let me see." + call("f") + "\n" + call("f"))
    arguments = '{"city": "Tōkyō"}'
    assert piece.tool_calls == (
        ToolCall(id="call_x_1", name="f", arguments=arguments),
        ToolCall(id="call_x_2", name="f", arguments=arguments),
    )
    assert piece.text == "Let me see."
    assert output.called


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n" + "C", ""),
        ("C\n\nC\n", ""),
        ("C\n\nDone.", "\n\nDone."),
        (" \n<tool_call>no call</tool_call>", " \n<tool_call>no call</tool_call>"),
        ("\n \n", "\n \n"),
        ("\nyes \n", "\nyes \n"),
    ],
)
def test_blanks_that_only_part_calls_are_no_text(text: str, expected: str) -> None:
    assert run(text.replace("C", call("f")))[0].text == expected


@pytest.mark.parametrize(
    "broken",
    [
        "<tool_call>not json</tool_call>",
        '<tool_call>{"no": "name"}</tool_call>',
        '<tool_call>{"name": 7}</tool_call>',
        '<tool_call>{"name": "f", "argu',
    ],
)
def test_what_is_no_call_is_given_out_as_the_model_wrote_it(broken: str) -> None:
    piece, output = run("a " + broken)
    assert (piece.text, piece.tool_calls) == ("a " + broken, ())
    assert not output.called


def test_a_call_that_was_cut_off_is_none_though_it_could_be_read() -> None:
    """A lenient parser would make a call of what came before max_tokens ended it."""
    for cut, calls in ((True, 0), (False, 1)):
        reader = ToolReader(lambda text, _: {"name": text}, TOOL, [], "call_x")
        output = TextOutput(Letters(), Splitter(Markers(tool=TOOL), ()), reader)
        piece = Piece()
        for character in "<tool_call>half":
            piece += output.feed(ord(character))
        piece += output.finish(cut=cut)
        assert (len(piece.tool_calls), piece.text) == (calls, "<tool_call>half" if cut else "")


def test_without_tools_markup_is_text() -> None:
    assert run(call("f"), tools=False)[0].text == call("f")


def test_held_characters_come_with_the_end() -> None:
    assert run("x <~")[0].text == "x <~"


def test_a_stop_text_that_completes_with_the_end() -> None:
    piece, output = run("ab~", stops=("b~",))
    assert (piece.text, output.stop_text) == ("a", "b~")


def test_a_stop_text_inside_a_call_adds_no_markup() -> None:
    piece, output = run("a <tool_call>half STOP", stops=("STOP",))
    assert (piece.text, output.stop_text) == ("a <tool_call>half ", "STOP")


def test_a_parser_may_give_several_calls_and_text_arguments() -> None:
    text = '<tool_call>[{"name":"f","arguments":"{}"},{"name":"g"}]</tool_call>'
    calls = run(text)[0].tool_calls
    assert [(c.name, c.arguments) for c in calls] == [("f", "{}"), ("g", "{}")]
