"""The allowance and the line; how rows live is in the engine contract."""

from typing import Literal

import pytest

from daemon.wire.data import Delta, Done, Generate
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.output import TextOutput, ToolReader
from daemon.worker.engines.rows import WAITING_MAX, Allowance, Row, Rows, Token
from daemon.worker.engines.splitting import Markers, Splitter

REQUEST = Generate(lease="l", prompt="x")


@pytest.mark.parametrize(
    ("lengths", "holds", "admits"),
    [
        ([5000], True, True),
        ([256, 256], True, True),
        ([257, 1], True, False),
        ([512, 512], True, False),
        ([513, 1], False, False),
        ([1, 1, 1], True, False),
        ([1, 1, 1, 1], False, False),
    ],
)
def test_rows_times_the_longest(lengths: list[int], *, holds: bool, admits: bool) -> None:
    allowance = Allowance(kv_tokens=1024, rows_max=3)
    assert allowance.holds(lengths) is holds
    assert allowance.admits(lengths) is admits


@pytest.mark.parametrize(
    ("lengths", "left"),
    [([], 2048), ([1], 1536), ([256, 257], 0), ([256, 200], 1024), ([5000], 0)],
)
def test_what_rows_leave_of_the_allowance(lengths: list[int], left: int) -> None:
    assert Allowance(kv_tokens=1024, rows_max=3, kv_bytes=2048).left_bytes(lengths) == left


class NoDecoder:
    """A decoder for rows that never get to run."""

    def defers(self, row: Row) -> bool:
        return False

    def insert(self, row: Row) -> int:
        raise NotImplementedError

    def remove(self, uid: int) -> None:
        raise NotImplementedError

    def next(self) -> list[Token]:
        raise NotImplementedError

    def put_away(self) -> bool:
        return False

    def keep_within(self, bytes_max: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to free."""


class NoText:
    """A detokenizer that is never asked."""

    last_segment = ""

    def add_token(self, token: int) -> None:
        raise NotImplementedError

    def finalize(self) -> None:
        raise NotImplementedError


def row() -> Row:
    return Row(prompt=[1], tokens_max=1, output=TextOutput(NoText(), Splitter(Markers(), ())))


def test_the_line_is_bounded() -> None:
    rows = Rows(lambda _request: row(), NoDecoder, Allowance(1024, 1))
    for number in range(WAITING_MAX):
        rows.submit(number, REQUEST)
    with pytest.raises(MlxdError) as caught:
        rows.submit(WAITING_MAX, REQUEST)
    assert caught.value.code is Code.QUEUE_FULL
    rows.cancel(0)
    rows.submit(WAITING_MAX, REQUEST)


def test_a_row_that_cannot_be_inserted_fails_alone() -> None:
    rows = Rows(lambda _request: row(), NoDecoder, Allowance(1024, 4))
    rows.submit(1, REQUEST)
    (emission,) = rows.step()
    assert emission.usage is not None
    assert emission.frames[0].fault.code is Code.WORKER_FAILED  # type: ignore[union-attr]
    assert not rows.busy


class Script(NoDecoder):
    """A decoder that writes one text, a letter a step, and then ends the row as it is told."""

    def __init__(self, text: str, finish: Literal["stop", "length"]) -> None:
        self._text = list(text)
        self._finish = finish

    def insert(self, row: Row) -> int:
        return 1

    def next(self) -> list[Token]:
        letter = self._text.pop(0)
        return [Token(1, ord(letter), None if self._text else self._finish)]


class Letters(NoText):
    """A detokenizer whose tokens are letters."""

    def add_token(self, token: int) -> None:
        self.last_segment = chr(token)

    def finalize(self) -> None:
        self.last_segment = ""


@pytest.mark.parametrize(("finish", "reason"), [("length", "length"), ("stop", "tool_calls")])
def test_max_tokens_within_a_call_make_no_call(
    finish: Literal["stop", "length"], reason: str
) -> None:
    """Else a lenient parser's half of the arguments would be carried out by somebody."""
    markers = ("<c>", "</c>")
    reader = ToolReader(lambda text, _: {"name": text}, markers, [], "call")
    output = TextOutput(Letters(), Splitter(Markers(tool=markers), ()), reader)
    rows = Rows(
        lambda _request: Row(prompt=[1], tokens_max=9, output=output),
        lambda: Script("<c>rm.", finish),
        Allowance(1024, 1),
    )
    rows.submit(1, REQUEST)
    frames = [frame for _ in range(6) for emission in rows.step() for frame in emission.frames]
    assert isinstance(frames[-1], Done)
    assert frames[-1].finish_reason == reason
    calls = [call for frame in frames if isinstance(frame, Delta) for call in frame.tool_calls]
    assert len(calls) == (reason == "tool_calls")


class Bursts(Script):
    """A script that writes all of its text in one step, and counts who was taken out."""

    def __init__(self, text: str, finish: Literal["stop", "length"] | None) -> None:
        self._burst = [Token(1, ord(letter)) for letter in text]
        if finish is not None:
            self._burst[-1] = Token(1, ord(text[-1]), finish)
        self.taken_out: list[int] = []

    def remove(self, uid: int) -> None:
        self.taken_out.append(uid)

    def next(self) -> list[Token]:
        return self._burst


@pytest.mark.parametrize(
    ("finish", "stop", "text", "tokens", "reason", "taken_out"),
    [
        (None, "cd", "ab", 4, "stop", [1]),
        ("length", "cd", "ab", 4, "stop", []),
        ("length", "xy", "abcdefg", 7, "length", []),
        ("stop", "xy", "abcdef", 7, "stop", []),
    ],
)
def test_several_tokens_of_a_step_are_one_frame_and_end_where_the_answer_does(
    finish: Literal["stop", "length"] | None,
    stop: str,
    text: str,
    tokens: int,
    reason: str,
    taken_out: list[int],
) -> None:
    """A row that the decoder has finished itself is not taken out, wherever its answer ended."""
    decoder = Bursts("abcdefg", finish)
    output = TextOutput(Letters(), Splitter(Markers(), (stop,)))
    rows = Rows(
        lambda _request: Row(prompt=[1], tokens_max=9, output=output),
        lambda: decoder,
        Allowance(1024, 1),
    )
    rows.submit(1, REQUEST)
    (emission,) = rows.step()
    *deltas, done = emission.frames
    assert isinstance(done, Done)
    assert [delta.text for delta in deltas if isinstance(delta, Delta)] == [text]
    assert (done.finish_reason, done.usage.completion_tokens) == (reason, tokens)
    assert decoder.taken_out == taken_out
    assert not rows.busy
