"""Sound files: what goes in comes out, and what cannot be read says so."""

import io
import math
import tracemalloc
import wave

import numpy as np
import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import sound
from daemon.worker.engines.sound import Samples, sound_pieces, to_pcm, wav_file


def tone(seconds: float, rate: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 0.5 * np.sin(2 * math.pi * 440 * np.arange(int(seconds * rate)) / rate)


def decode_sound(data: bytes, rate: int, field: str) -> Samples:
    return np.concatenate([*sound_pieces(data, rate, field)])


def test_a_wav_file_says_what_it_holds() -> None:
    pcm = to_pcm(tone(0.25, 24000))
    with wave.open(io.BytesIO(wav_file(pcm, 24000))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24000)
        assert file.getnframes() == 6000
        assert file.readframes(6000) == pcm


def test_what_was_written_is_read_again() -> None:
    samples = decode_sound(wav_file(to_pcm(tone(1.0, 16000)), 16000), 16000, "audio")
    np.testing.assert_allclose(samples, tone(1.0, 16000), atol=1e-4)


def test_other_rates_are_converted() -> None:
    samples = decode_sound(wav_file(to_pcm(tone(1.0, 48000)), 48000), 16000, "audio")
    assert abs(len(samples) - 16000) < 100
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(int(spectrum.argmax()) * 16000 / len(samples) - 440) < 2


def test_samples_beyond_the_range_are_clipped() -> None:
    assert np.frombuffer(to_pcm([2.0, -2.0, 0.0]), "<i2").tolist() == [32767, -32767, 0]


@pytest.mark.parametrize(
    "data", [b"", b"not a sound at all", wav_file(b"", 16000), wav_file(b"ab", 16000)[:20]]
)
def test_what_is_no_sound_is_refused(data: bytes) -> None:
    with pytest.raises(MlxdError) as caught:
        decode_sound(data, 16000, "audio")
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "audio")


def test_a_sound_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "SOUND_S_MAX", 1)
    with pytest.raises(MlxdError, match="longer"):
        decode_sound(wav_file(to_pcm(tone(1.1, 16000)), 16000), 16000, "audio")


@pytest.mark.parametrize("rate", [1000, 16000, 44100])
def test_a_long_sound_is_decoded_as_it_is_taken(rate: int) -> None:
    data = wav_file(bytes(2 * 300 * rate), rate)
    tracemalloc.start()
    try:
        lengths = [len(piece) for piece in sound_pieces(data, 16000, "audio")]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(lengths) == pytest.approx(300 * 16000, abs=200)
    assert max(lengths) <= 1 << 16
    assert peak_bytes < 2 << 20, "all samples are 19 MB"


def test_joins_of_pieces_are_not_heard() -> None:
    data = wav_file(to_pcm(tone(10.0, 44100)), 44100)
    samples = decode_sound(data, 16000, "audio")[100:-100]
    turned = samples[2:] + samples[:-2] - 2 * math.cos(2 * math.pi * 440 / 16000) * samples[1:-1]
    assert abs(turned).max() < 0.01, "of one tone, each sample follows from the two before it"


def test_what_is_found_late_is_refused_when_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "SOUND_S_MAX", 5)
    pieces = sound_pieces(wav_file(to_pcm(tone(6.0, 16000)), 16000), 16000, "audio")
    assert len(next(pieces)) == 1 << 16
    with pytest.raises(MlxdError, match="longer"):
        next(pieces)
