"""Sound files in and out: decoded within bounds, or refused by name."""

import io
import wave
from typing import Any, Final

import miniaudio  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from daemon.worker.engines.conversation import invalid

Samples = npt.NDArray[np.float32]
"""Mono, -1 to 1."""

SOUND_S_MAX: Final = 4 * 3600
"""Longest sound; as samples it takes 0.9 GB at 16 kHz."""

_CHUNK_FRAMES: Final = 1 << 16


def decode_sound(data: bytes, sample_rate: int, field: str) -> Samples:
    """A WAV, MP3, FLAC or Ogg Vorbis file as mono samples.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: unknown format, damaged, too long.
    """
    if not data:
        raise invalid("the sound is empty", field)
    try:
        chunks = _chunks(data, sample_rate)
        joined = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    except miniaudio.MiniaudioError as error:
        raise invalid(
            f"the sound is none of WAV, MP3, FLAC and Ogg Vorbis, or is damaged ({error}); "
            "convert it first",
            field,
        ) from error
    if len(joined) == 0:
        raise invalid("the sound has no samples", field)
    if len(joined) > SOUND_S_MAX * sample_rate:
        raise invalid(f"the sound is longer than {SOUND_S_MAX // 3600} hours; cut it", field)
    return joined


def _chunks(data: bytes, sample_rate: int) -> list[Samples]:
    """The sound's samples, a little more than the longest sound at most."""
    stream = miniaudio.stream_memory(
        data,
        output_format=miniaudio.SampleFormat.FLOAT32,
        nchannels=1,
        sample_rate=sample_rate,
        frames_to_read=_CHUNK_FRAMES,
    )
    chunks: list[Samples] = []
    total = 0
    for chunk in stream:
        chunks.append(np.array(chunk, np.float32))
        total += len(chunk)
        if total > SOUND_S_MAX * sample_rate:
            break
    return chunks


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
