"""How a window's tokens become segments; hearing itself is in test_speech."""

from types import SimpleNamespace
from typing import Any

import pytest

from daemon.wire.data import Transcribe
from daemon.worker.engines.base import LoadRefused
from daemon.worker.engines.transcription import TranscriptionEngine, _Hearing, _Window
from tests.contract.bench import begin
from tests.contract.tiny import build_embedding_model

STAMP = 1000
"""Tokens from here on are time stamps of 20 ms each; a letter's token is its code."""


class Tokenizer:
    """The part of Whisper's tokenizer that segments need."""

    timestamp_begin = STAMP
    eot = 500

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def hearing() -> _Hearing:
    model: Any = SimpleNamespace(dims=SimpleNamespace(n_audio_ctx=1500))
    return _Hearing(model, Tokenizer(), Transcribe(lease="l", audio=b""), "en", [])


def cut(*tokens: int | str, begin: int = 0, size: int = 3000) -> tuple[list[Any], int]:
    flat = [t for one in tokens for t in (map(ord, one) if isinstance(one, str) else (one,))]
    result = SimpleNamespace(tokens=flat)
    segments, advance = hearing()._cut(_Window(begin, size, None), result)
    return [(one["text"], one["start"], one["end"]) for one in segments], advance


def test_stamps_in_pairs_part_segments_and_the_rest_is_heard_again() -> None:
    segments, advance = cut(
        STAMP, " a", STAMP + 50, STAMP + 50, " b", STAMP + 100, STAMP + 100, "x"
    )
    assert segments == [(" a", 0.0, 1.0), (" b", 1.0, 2.0)]
    assert advance == 200, "2 seconds, in frames of 10 ms"


def test_a_single_stamp_at_the_end_means_that_nothing_follows() -> None:
    segments, advance = cut(STAMP, " a", STAMP + 50, STAMP + 60, " b", STAMP + 100)
    assert segments == [(" a", 0.0, 1.0), (" b", 1.2, 2.0)]
    assert advance == 3000


def test_without_pairs_the_window_is_one_segment() -> None:
    assert cut(STAMP, " a", STAMP + 75) == ([(" a", 0.0, 1.5)], 3000)
    assert cut(STAMP, " a", size=800) == ([(" a", 0.0, 8.0)], 800)


def test_times_count_from_the_beginning_of_the_sound() -> None:
    segments, _ = cut(STAMP, " a", STAMP + 50, STAMP + 50, " b", STAMP + 100, begin=1000)
    assert segments == [(" a", 10.0, 11.0), (" b", 11.0, 12.0)]


def test_other_architectures_are_refused_by_name(tmp_path: Any) -> None:
    folder = build_embedding_model(tmp_path / "m")
    with pytest.raises(LoadRefused, match='"bert"'):
        TranscriptionEngine().load(begin(folder, "transcription"), lambda _a, _b: None)
