"""Sound files: each format is read back by another library than the one that wrote it."""

import io
import math
import sys
import wave

import miniaudio  # type: ignore[import-untyped]
import numpy as np
import pytest
import soundfile

from daemon.wire.data import AudioFormat
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.encoding import make_encoder
from daemon.worker.engines.sound import to_pcm

RATE = 24_000
TONE = 0.5 * np.sin(2 * math.pi * 440 * np.arange(2 * RATE) / RATE)
PCM = to_pcm(TONE)
PIECE_BYTES = 10_000


def parts_of(wanted: AudioFormat) -> list[bytes]:
    """A file of the tone, as it grows; the last part is what was left at its end."""
    encoder = make_encoder(wanted, RATE)
    begins = range(0, len(PCM), PIECE_BYTES)
    parts = [encoder.add(PCM[begin : begin + PIECE_BYTES]) for begin in begins]
    return [*parts, encoder.end()]


def heard_hz(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]", rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(spectrum.argmax()) * rate / len(samples)


@pytest.mark.parametrize("wanted", ["mp3", "flac", "wav"])
def test_what_was_written_is_heard(wanted: AudioFormat) -> None:
    found = miniaudio.decode(b"".join(parts_of(wanted)), nchannels=1, sample_rate=RATE)
    samples = np.array(found.samples, np.float32)
    assert abs(len(samples) - len(TONE)) < 0.1 * RATE  # MP3 has a delay and whole frames
    assert abs(heard_hz(samples, RATE) - 440) < 1
    assert np.sqrt((samples**2).mean()) / 32768 == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


def test_opus_is_heard() -> None:
    samples, rate = soundfile.read(io.BytesIO(b"".join(parts_of("opus"))), dtype="float32")
    assert soundfile.info(io.BytesIO(b"".join(parts_of("opus")))).subtype == "OPUS"
    assert abs(len(samples) / rate - 2) < 0.1
    assert abs(heard_hz(samples, rate) - 440) < 1


def test_what_loses_nothing_gives_the_same_samples() -> None:
    flac, rate = soundfile.read(io.BytesIO(b"".join(parts_of("flac"))), dtype="int16")
    assert (rate, flac.astype("<i2").tobytes()) == (RATE, PCM)
    with wave.open(io.BytesIO(b"".join(parts_of("wav")))) as file:
        assert (file.getframerate(), file.readframes(len(TONE))) == (RATE, PCM)
    assert b"".join(parts_of("pcm")) == PCM


@pytest.mark.parametrize(("wanted", "grows"), [
    ("mp3", True), ("opus", True), ("pcm", True), ("wav", False), ("flac", False),
])  # fmt: skip
def test_sound_goes_out_as_soon_as_its_format_permits(wanted: AudioFormat, grows: bool) -> None:
    *parts, _last = parts_of(wanted)
    assert any(parts) == grows


def test_a_stream_says_how_long_it_is() -> None:
    """Players that look at the first frame of an MP3 must not stop early."""
    info = soundfile.info(io.BytesIO(b"".join(parts_of("mp3"))))
    assert info.duration == pytest.approx(2, abs=0.1)


def test_without_the_library_the_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MlxdError, match='ask for "wav" or "pcm"') as caught:
        make_encoder("mp3", RATE)
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "format")
    assert make_encoder("wav", RATE).end()[:4] == b"RIFF"
