"""Spectrograms in pieces: the library's own, of the whole sound, is what has to come out."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_audio.stt.models.whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram

from daemon.worker.engines.sound import sound_pieces, to_pcm, wav_file
from daemon.worker.engines.spectrogram import Spectrogram

MELS = 80


def file_of(samples: int, rate: int = 16000) -> bytes:
    """Noise that grows louder, so that the maximum is at the end."""
    noise = np.random.default_rng(samples).uniform(-1, 1, samples)
    return wav_file(to_pcm(noise * np.linspace(0.001, 0.5, samples)), rate)


def whole(data: bytes) -> Any:
    samples = np.concatenate([*sound_pieces(data, 16000, "audio")])
    return log_mel_spectrogram(mx.array(samples), n_mels=MELS, padding=N_SAMPLES)


def measured(data: bytes) -> tuple[Spectrogram, int]:
    spectrogram = Spectrogram(data, MELS)
    return spectrogram, sum(1 for _ in spectrogram.measure())


@pytest.mark.parametrize(
    "samples", [1, 159, 200, 201, 400, 16000, N_SAMPLES - 1, N_SAMPLES, N_SAMPLES + 200, 1_000_077]
)
def test_pieces_are_those_of_the_whole(samples: int) -> None:
    data = file_of(samples)
    expected = whole(data)
    spectrogram, _ = measured(data)
    assert spectrogram.samples == samples
    assert spectrogram.frames == expected.shape[0] - N_FRAMES
    for begin in range(0, expected.shape[0], N_FRAMES):
        part = expected[begin : begin + N_FRAMES]
        got = spectrogram.part(begin, part.shape[0])
        np.testing.assert_allclose(np.array(got), np.array(part), atol=1e-5)


@pytest.mark.parametrize("samples", [N_SAMPLES - 200, N_SAMPLES - 1, N_SAMPLES, N_SAMPLES + 39])
def test_a_click_at_the_very_end_counts_as_the_loudest(samples: int) -> None:
    sound = np.random.default_rng(1).uniform(-1e-3, 1e-3, samples)
    sound[-10] = 0.9
    data = wav_file(to_pcm(sound), 16000)
    spectrogram, _ = measured(data)
    got = np.array(spectrogram.part(0, N_FRAMES))
    np.testing.assert_allclose(got, np.array(whole(data)[:N_FRAMES]), atol=1e-5)


def test_parts_may_overlap_and_leave_gaps() -> None:
    data = file_of(110_250, 22050)
    expected = whole(data)
    spectrogram, _ = measured(data)
    for begin, size in ((0, 300), (0, 100), (1, 300), (37, 10), (320, 100), (2900, 500)):
        got = spectrogram.part(begin, size)
        np.testing.assert_allclose(
            np.array(got), np.array(expected[begin : begin + size]), atol=1e-5
        )


def test_a_sound_is_measured_in_pieces_of_a_window() -> None:
    assert [measured(file_of(n))[1] for n in (100, N_SAMPLES - 400, 3 * N_SAMPLES)] == [1, 1, 4]
