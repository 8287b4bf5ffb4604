"""Sound files in and out: decoded within bounds, or refused by name."""

import io
import wave
from collections.abc import Iterator
from typing import Any, Final

import miniaudio  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from daemon.worker.engines.conversation import invalid

Samples = npt.NDArray[np.float32]
"""Mono, -1 to 1."""

SOUND_S_MAX: Final = 4 * 3600
"""Longest sound."""

_PIECE_FRAMES: Final = 1 << 16


def sound_pieces(data: bytes, sample_rate: int, field: str) -> Iterator[Samples]:
    """A WAV, MP3, FLAC or Ogg Vorbis file as mono samples, decoded as they are taken: 65,536 in
    a piece at most, and one piece at least.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: with the first piece if the format is
            unknown or there is nothing in it, where it is damaged, where it becomes too long.
    """
    if not data:
        raise invalid("the sound is empty", field)
    total = 0
    try:
        for piece in _decoded(data, sample_rate):
            total += len(piece)
            if total > SOUND_S_MAX * sample_rate:
                hours = SOUND_S_MAX // 3600
                raise invalid(f"the sound is longer than {hours} hours; cut it", field)
            yield piece
    except miniaudio.MiniaudioError as error:
        raise invalid(
            f"the sound is none of WAV, MP3, FLAC and Ogg Vorbis, or is damaged ({error}); "
            "convert it first",
            field,
        ) from error
    if total == 0:
        raise invalid("the sound has no samples", field)


def _decoded(data: bytes, sample_rate: int) -> Iterator[Samples]:
    stream = miniaudio.stream_memory(
        data,
        output_format=miniaudio.SampleFormat.FLOAT32,
        nchannels=1,
        sample_rate=sample_rate,
        frames_to_read=_PIECE_FRAMES,
    )
    for samples in stream:
        yield np.frombuffer(samples, np.float32)


def to_pcm(samples: Any) -> bytes:
    """16-bit little-endian samples, clipped."""
    scaled = np.clip(np.asarray(samples, np.float32), -1.0, 1.0) * 32767.0
    pcm: bytes = np.rint(scaled).astype("<i2").tobytes()
    return pcm


def wav_file(pcm: bytes, sample_rate: int) -> bytes:
    """A WAV file around 16-bit mono samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm)
    return buffer.getvalue()
