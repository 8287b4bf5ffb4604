"""What Whisper sees of a sound: its log-mel spectrogram, computed a piece at a time.

The frames are those that the library's ``log_mel_spectrogram`` gives for the whole sound with
30 s of silence behind it. They depend on the loudest of them, so that the sound is gone through
once before the first one is given, and decoded again for those that are heard.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx_audio.stt.models.whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES, SAMPLE_RATE
from mlx_audio.utils import hanning, mel_filters, stft

from daemon.worker.engines.sound import Samples, sound_pieces

_EDGE: Final = N_FFT // 2
"""Samples before the sound, its own mirrored: a frame's middle is where the frame counts from."""

_QUIETEST: Final = 1e-10
_RANGE: Final = 8.0
"""Powers of ten between the loudest frame and what counts as silence."""


class Spectrogram:
    """One sound's, read forwards; of the sound no more is decoded than a part takes.

    Attributes:
        samples: Length of the sound at 16 kHz; 0 until it was measured.
    """

    def __init__(self, audio: bytes, n_mels: int) -> None:
        self._audio = audio
        self._n_mels = n_mels
        self._loudest = -math.inf
        self._reader = self._opened()
        self.samples = 0

    @property
    def frames(self) -> int:
        """Frames of 10 ms that the sound fills."""
        filled: int = self.samples // HOP_LENGTH
        return filled

    def measure(self) -> Iterator[None]:
        """Go through the sound, which has to be done before parts are asked for: 30 s for each
        value that is taken.

        Raises:
            MlxdError: As of :func:`~daemon.worker.engines.sound.sound_pieces`.
        """
        begin = 0
        while not self._reader.ends_by(begin * HOP_LENGTH):
            loudest = self._powers(begin, N_FRAMES).max().item()
            self._loudest = max(self._loudest, loudest)
            begin += N_FRAMES
            yield
        self.samples = self._reader.read - _EDGE
        self._reader = self._opened()

    def part(self, begin: int, size: int) -> Any:
        """Frames ``[size, n_mels]``; ``begin`` is never before that of an earlier part."""
        powers = mx.maximum(self._powers(begin, size), self._loudest - _RANGE)
        return (powers + 4.0) / 4.0

    def _opened(self) -> "_Reader":
        return _Reader(_mirrored(sound_pieces(self._audio, SAMPLE_RATE, "audio")))

    def _powers(self, begin: int, size: int) -> Any:
        """Of each frame and band the power of ten."""
        first = begin * HOP_LENGTH
        part = self._reader.between(first, first + (size - 1) * HOP_LENGTH + N_FFT)
        window = hanning(N_FFT, periodic=True)
        waves = stft(
            mx.array(part), n_fft=N_FFT, hop_length=HOP_LENGTH, window=window, center=False
        )
        filters = mel_filters(SAMPLE_RATE, N_FFT, self._n_mels, norm="slaney", mel_scale=None)
        return mx.maximum(waves.abs().square() @ filters.T, _QUIETEST).log10()


class _Reader:
    """Samples from pieces, in stretches that may overlap; behind the end there is silence.

    Attributes:
        read: How many samples came so far.
    """

    def __init__(self, pieces: Iterator[Samples]) -> None:
        self._pieces = pieces
        self._held: Samples = np.empty(0, np.float32)
        self._begin = 0
        self._ended = False
        self.read = 0

    def between(self, first: int, stop: int) -> Samples:
        """Samples from ``first`` on, which is not before that of an earlier call."""
        assert first >= self._begin, "what was passed is gone"
        held = [self._held[first - self._begin :]]
        while self.read < stop and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            if piece is not None:
                held.append(piece[max(0, first - self.read) :])
                self.read += len(piece)
        self._held, self._begin = np.concatenate(held), first
        part = self._held[: stop - first]
        return np.pad(part, (0, stop - first - len(part)))

    def ends_by(self, stop: int) -> bool:
        """Whether it is known that there are no samples from ``stop`` on."""
        return self._ended and self.read <= stop


def _mirrored(pieces: Iterator[Samples]) -> Iterator[Samples]:
    """The pieces, and before them the edge."""
    head: Samples = np.empty(0, np.float32)
    while len(head) <= _EDGE and (piece := next(pieces, None)) is not None:
        head = np.concatenate([head, piece])
    yield np.pad(head, (0, max(0, _EDGE + 1 - len(head))))[_EDGE:0:-1]
    yield head
    yield from pieces
