"""Scores are read exactly, and go out with the text that they belong to."""

import math
from collections.abc import Callable

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.worker.engines.logprobs import LogprobTrail, Recorder, Scores, read_scores
from daemon.worker.engines.output import TextOutput
from daemon.worker.engines.splitting import Markers, Splitter

BOTH = Markers(think=("<think>", "</think>"), tool=("<call>", "</call>"))


def test_the_likeliest_come_first() -> None:
    logprobs = mx.log(mx.array([0.1, 0.4, 0.2, 0.3]))
    scores = read_scores(logprobs, 2, 3)
    assert scores.token == pytest.approx(math.log(0.2))
    assert [token for token, _ in scores.top] == [1, 3, 2]
    assert [math.exp(value) for _, value in scores.top] == pytest.approx([0.4, 0.3, 0.2])
    assert read_scores(logprobs, 0, 0).top == ()
    assert len(read_scores(logprobs, 0, 20).top) == 4


def test_half_precision_is_read_as_it_is() -> None:
    logprobs = mx.array([-1.5, -0.25]).astype(mx.bfloat16)
    assert read_scores(logprobs, 0, 1) == Scores(-1.5, ((1, -0.25),))


def test_what_was_impossible_is_no_alternative() -> None:
    assert read_scores(mx.array([-math.inf, 0.0, -math.inf]), 1, 3).top == ((1, 0.0),)


def test_a_recorder_gives_each_step_in_turn() -> None:
    recorder = Recorder()
    for logits in ([0.0, 0.0], [0.0, math.log(3)]):
        array = mx.array([logits])
        assert recorder(mx.array([1]), array) is array
    assert mx.exp(recorder.next()).tolist() == pytest.approx([0.5, 0.5])
    assert mx.exp(recorder.next()).tolist() == pytest.approx([0.25, 0.75])


class Letters:
    """Tokens are characters; those above 255 come out with the next one below."""

    def __init__(self) -> None:
        self.last_segment = ""
        self._held = ""

    def add_token(self, token: int) -> None:
        self._held += chr(token & 255)
        self.last_segment, self._held = ("", self._held) if token > 255 else (self._held, "")

    def finalize(self) -> None:
        self.last_segment, self._held = self._held, ""


def run(tokens: list[int], stops: tuple[str, ...] = ()) -> tuple[str, str]:
    """The visible text, and the letters of the tokens whose scores went out."""
    trail = LogprobTrail(lambda token: bytes([token & 255]))
    output = TextOutput(Letters(), Splitter(BOTH, stops), None, trail)
    text, letters = "", b""
    for token in tokens:
        piece = output.feed(token, Scores(-1.0))
        text += piece.text
        letters += b"".join(entry.token for entry in piece.logprobs)
        if output.ended:
            break
    piece = output.finish()
    return text + piece.text, (letters + b"".join(e.token for e in piece.logprobs)).decode()


@pytest.mark.parametrize("hold", [lambda i: False, lambda i: i % 3 == 1], ids=["each", "joined"])
def test_markup_and_stop_texts_have_no_scores(hold: Callable[[int], bool]) -> None:
    written = "ab<think>never</think>cd <thin e STOP never"
    tokens = [ord(one) + (256 if hold(i) else 0) for i, one in enumerate(written)]
    text, letters = run(tokens, ("STOP",))
    assert text == "abcd <thin e "
    if hold(1):
        assert text in letters.replace("<", "", 0) or len(letters) >= len(text)
    else:
        assert letters == text


@given(st.lists(st.sampled_from(["a", "<think>", "</think>", "b<", "STO", "P", "é"]), max_size=12))
def test_letter_by_letter_scores_spell_the_text(parts: list[str]) -> None:
    written = "".join(parts).replace("é", "e")
    text, letters = run([ord(one) for one in written], ("STOP",))
    assert letters == text
