"""Speech as a sound file that grows: MP3 and Opus piece by piece, WAV and FLAC at their end.

The headers of WAV and FLAC say how long the sound is, so that they cannot go out before it is
known. Encoders are libsndfile's (https://libsndfile.github.io/libsndfile/), by way of
soundfile, whose wheels bring it along.
"""

import io
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from daemon.wire.data import AudioFormat
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.sound import wav_file

_MP3: Final = {
    "format": "MP3",
    "subtype": "MPEG_LAYER_III",
    # With a variable rate the first frame is a table that is only known at the end. At 24 kHz
    # this level is 64 kbit/s.
    "bitrate_mode": "CONSTANT",
    "compression_level": 0.6,
}
_OPUS: Final = {"format": "OGG", "subtype": "OPUS"}
_FLAC: Final = {"format": "FLAC", "subtype": "PCM_16"}


class Encoder(Protocol):
    """A sound file in the making; its parts, joined, are the file."""

    def add(self, pcm: bytes) -> bytes:
        """What 16-bit mono samples add to the file; empty where that is not known yet."""

    def end(self) -> bytes:
        """What is left."""


def make_encoder(wanted: AudioFormat, sample_rate: int) -> Encoder:
    """An empty file of the format ``wanted``.

    Raises:
        MlxdError: ``invalid_request`` with the field ``format``: its encoder is not installed.
    """
    match wanted:
        case "pcm":
            return _Plain()
        case "wav":
            return _Wav(sample_rate)
        case "mp3":
            return _Coded(_open_file(wanted), sample_rate, _MP3, streams=True)
        case "opus":
            return _Coded(_open_file(wanted), sample_rate, _OPUS, streams=True)
        case "flac":
            return _Coded(_open_file(wanted), sample_rate, _FLAC, streams=False)


def _open_file(wanted: str) -> Callable[..., Any]:
    """soundfile's way to open a file; imported when it is needed, and not before."""
    try:
        from soundfile import SoundFile  # noqa: PLC0415 - loads a library of 4 MB
    except (ImportError, OSError) as error:
        raise invalid(
            f"sound as {wanted} needs libsndfile, which is not installed here ({error}); "
            'ask for "wav" or "pcm", or install the package soundfile',
            "format",
        ) from error
    opened: Callable[..., Any] = SoundFile
    return opened


class _Plain:
    def add(self, pcm: bytes) -> bytes:
        return pcm

    def end(self) -> bytes:
        return b""


class _Wav:
    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._pcm = bytearray()

    def add(self, pcm: bytes) -> bytes:
        self._pcm += pcm
        return b""

    def end(self) -> bytes:
        return wav_file(bytes(self._pcm), self._sample_rate)


class _Coded:
    """A file of libsndfile's.

    Args:
        streams: Whether what was written is never gone back to.
    """

    def __init__(
        self,
        open_file: Callable[..., Any],
        sample_rate: int,
        form: dict[str, Any],
        *,
        streams: bool,
    ) -> None:
        self._streams = streams
        self._written = io.BytesIO()
        self._taken = 0
        self._file = open_file(self._written, "w", samplerate=sample_rate, channels=1, **form)

    def add(self, pcm: bytes) -> bytes:
        self._file.write(np.frombuffer(pcm, "<i2"))
        return self._new() if self._streams else b""

    def end(self) -> bytes:
        self._file.close()
        return self._new()

    def _new(self) -> bytes:
        """What was written since the last time."""
        written = self._written.getvalue()[self._taken :]
        self._taken += len(written)
        return written
