"""Text to speech: Kokoro, on mlx_audio's model.

The model reads phonemes. A text between slashes is taken as phonemes; any other text is
turned into them by :mod:`daemon.worker.engines.phonemes`, where its data is installed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
import numpy as np
from mlx_audio.tts.utils import load_model

from daemon.wire.data import Audio, Begin, Speak, WorkRequest
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.encoding import Encoder, make_encoder
from daemon.worker.engines.jobs import Job, JobEngine, JobModel
from daemon.worker.engines.phonemes import english_phonemes
from daemon.worker.engines.sound import to_pcm
from daemon.worker.engines.weights import read_weights

PHONEMES_MAX: Final = 510
"""Kokoro's context less its two frame tokens; voices have a style for each length up to it."""

PIECE_PHONEMES: Final = 200
"""Sentences are spoken one at a time, and longer ones are cut where they pause."""

TEXT_CHARACTERS_MAX: Final = 100_000
SPEED_MIN, SPEED_MAX = 0.25, 4.0
FRAME_BYTES: Final = 1 << 20
_ENDS: Final = re.compile(r"(?<=[.!?…;:])\s+")


class SpeechEngine(JobEngine):
    """One Kokoro."""

    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        folder = Path(begin.path)
        kind = config.get("model_type", "kokoro")
        if kind != "kokoro":
            raise LoadRefused(
                "incompatible",
                f'{folder / "config.json"}: models of type "{kind}" cannot be served yet; for '
                "speech use a Kokoro",
            )
        voices = {path.stem: path for path in sorted((folder / "voices").glob("*.safetensors"))}
        if not voices:
            raise LoadRefused("incompatible", f"{folder / 'voices'} holds no voices")
        model = load_model(folder, lazy=True)
        read_weights(model, progress)
        return _Kokoro(model, voices, begin.name)


class _Kokoro(JobModel):
    does = "speaks"

    def __init__(self, model: Any, voices: dict[str, Path], name: str) -> None:
        self._model = model
        self._voices = voices
        self._styles: dict[str, Any] = {}
        self._name = name

    def accept(self, request: WorkRequest) -> Job | None:
        if not isinstance(request, Speak):
            return None
        self._check(request)
        style = self._style(request.voice)
        pieces = cut_phonemes(self._phonemes(request.text))
        encoder = make_encoder(request.format, int(self._model.sample_rate))
        spoken = _Spoken(style, pieces, request.speed, encoder)
        return Job(sum(map(len, pieces)), lambda _job: self._run(spoken))

    def _check(self, request: Speak) -> None:
        if not request.text.strip():
            raise invalid("the text is empty", "text")
        if len(request.text) > TEXT_CHARACTERS_MAX:
            raise invalid(f"the text has more than {TEXT_CHARACTERS_MAX} characters", "text")
        if not SPEED_MIN <= request.speed <= SPEED_MAX:
            raise invalid(f"speed must be between {SPEED_MIN} and {SPEED_MAX:g}", "speed")
        if request.instructions is not None:
            raise invalid(f'"{self._name}" takes no instructions; leave them out', "instructions")

    def _style(self, voice: str) -> Any:
        """The voice's styles ``[lengths, 1, width]``, read once."""
        if voice not in self._voices:
            raise invalid(
                f'"{self._name}" has no voice "{voice}"; it has {", ".join(self._voices)}', "voice"
            )
        if voice not in self._styles:
            stored: Any = mx.load(str(self._voices[voice]))
            self._styles[voice] = stored["voice"]
        return self._styles[voice]

    def _phonemes(self, text: str) -> str:
        stripped = text.strip()
        if len(stripped) > 2 and stripped[0] == stripped[-1] == "/":
            written = stripped[1:-1]
            unknown = sorted(set(written) - set(self._model.vocab))
            if unknown:
                raise invalid(f"not phonemes of this model: {' '.join(unknown)}", "text")
            return written
        spoken = "".join(one for one in english_phonemes(text) if one in self._model.vocab)
        if not spoken.strip():
            raise invalid("there is nothing to speak in this text", "text")
        return spoken

    def _run(self, spoken: "_Spoken") -> Iterator[Audio | None]:
        """Sound goes out as it is spoken, as far as its format lets it."""
        for phonemes in spoken.pieces:
            reference = spoken.style[min(len(phonemes), len(spoken.style)) - 1]
            output = self._model(phonemes, reference, spoken.speed, return_output=True)
            pcm = to_pcm(np.array(output.audio.astype(mx.float32)).ravel())
            data = spoken.encoder.add(pcm)
            yield from _frames(data) if data else (None,)
        yield from _frames(spoken.encoder.end())


class _Spoken(msgspec.Struct, frozen=True):
    """What is spoken: phonemes in pieces, the voice's styles, and the file that it becomes."""

    style: Any
    pieces: list[str]
    speed: float
    encoder: Encoder


def _frames(data: bytes) -> Iterator[Audio]:
    for begin in range(0, len(data), FRAME_BYTES):
        yield Audio(data=data[begin : begin + FRAME_BYTES])


def cut_phonemes(phonemes: str) -> list[str]:
    """Pieces of at most PHONEMES_MAX, at the ends of sentences, else at commas, else at blanks.

    Short sentences are spoken together, up to PIECE_PHONEMES.
    """
    parts = [part for sentence in _ENDS.split(phonemes) for part in _fitting(sentence.strip())]
    pieces: list[str] = []
    for part in parts:
        if pieces and len(pieces[-1]) + 1 + len(part) <= PIECE_PHONEMES:
            pieces[-1] += " " + part
        else:
            pieces.append(part)
    return pieces


def _fitting(sentence: str) -> list[str]:
    parts = []
    while len(sentence) > PHONEMES_MAX:
        window = sentence[:PHONEMES_MAX]
        cut = max(window.rfind(", ") + 1, 0) or max(window.rfind(" "), 0) or PHONEMES_MAX
        parts.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*parts, sentence] if sentence else parts
