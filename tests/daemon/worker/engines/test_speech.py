"""Cutting what is spoken; and, with the real models, one understanding the other."""

import io
import wave
from collections.abc import Iterator

import numpy as np
import pytest

from daemon.wire.data import Done, Speak, Transcribe
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import REGISTRY
from daemon.worker.engines.sound import sound_pieces
from daemon.worker.engines.speech import PHONEMES_MAX, PIECE_PHONEMES, cut_phonemes
from tests.contract.bench import begin
from tests.contract.jobs import JobBench
from tests.models import model_path

SENTENCE = "/pˈæɹɪs ɪz ɪn fɹˈæns./"  # noqa: RUF001


def test_short_sentences_are_spoken_together() -> None:
    assert cut_phonemes("a b. c d! e") == ["a b. c d! e"]


def test_pieces_end_with_sentences() -> None:
    sentence = "x" * (PIECE_PHONEMES - 30) + "."
    assert cut_phonemes(f"{sentence} {sentence} {sentence}") == [sentence] * 3


@pytest.mark.parametrize("parting", [", ", " ", ""])
def test_what_is_too_long_is_cut_and_nothing_is_lost(parting: str) -> None:
    written = parting.join(["y" * 60] * 20)
    pieces = cut_phonemes(written)
    assert all(len(piece) <= PHONEMES_MAX for piece in pieces)
    assert "".join(pieces).replace(" ", "") == written.replace(" ", "")
    assert len(pieces) > 1


@pytest.fixture(scope="module")
def kokoro() -> Iterator[JobBench]:
    engine = REGISTRY["speech"]()
    engine.load(begin(model_path("kokoro-82m"), "speech"), lambda _done, _total: None)
    yield JobBench(engine)
    engine.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_spoken_is_understood(kokoro: JobBench) -> None:
    request = Speak(lease="l", text=SENTENCE, voice="jf_alpha", format="wav")
    spoken = kokoro.whole(request)
    assert isinstance(spoken.end, Done)
    assert spoken.end.usage.prompt_tokens == len(SENTENCE) - 2
    sound = b"".join(frame.data for frame in spoken.frames)
    with wave.open(io.BytesIO(sound)) as file:
        assert file.getframerate() == 24000
        seconds = file.getnframes() / 24000
    assert 1.0 < seconds < 4.0
    engine = REGISTRY["transcription"]()
    engine.load(begin(model_path("whisper-tiny.en"), "transcription"), lambda _a, _b: None)
    bench = JobBench(engine)
    heard = bench.whole(Transcribe(lease="l", audio=sound, words=True))
    first, *rest = heard.frames
    assert (first.language, first.segments) == ("en", ())
    assert first.duration_s == pytest.approx(seconds, abs=0.01)
    segments = [segment for frame in rest for segment in frame.segments]
    text = "".join(segment.text for segment in segments)
    assert text.strip().casefold() == "paris is in france."
    words = [word for segment in segments for word in segment.words]
    assert "".join(word.text for word in words) == text
    assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    assert words[-1].end_s <= seconds + 0.1
    for request_, field in (
        (Transcribe(lease="l", audio=sound, language="de"), "language"),
        (Transcribe(lease="l", audio=b"nonsense"), "audio"),
        (Transcribe(lease="l", audio=sound, temperature=3.0), "temperature"),
    ):
        with pytest.raises(MlxdError) as caught:
            engine.submit(9, request_)
        assert caught.value.fault.field == field
    engine.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_mp3_is_heard(kokoro: JobBench) -> None:
    request = Speak(lease="l", text=SENTENCE, voice="jf_alpha", format="mp3")
    spoken = b"".join(frame.data for frame in kokoro.whole(request).frames)
    samples = np.concatenate([*sound_pieces(spoken, 16000, "audio")])
    assert 1.0 < len(samples) / 16000 < 4.0
    assert abs(samples).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"voice": "nobody"}, "voice"),
        ({"speed": 9.0}, "speed"),
        ({"text": "  "}, "text"),
        ({"text": "/€/"}, "text"),
        ({"instructions": "softly"}, "instructions"),
    ],
)
def test_refusals_name_the_field(kokoro: JobBench, changes: dict[str, object], field: str) -> None:
    fields = {"text": SENTENCE, "voice": "jf_alpha", **changes}
    with pytest.raises(MlxdError) as caught:
        kokoro.engine.submit(99, Speak(lease="l", **fields))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)
