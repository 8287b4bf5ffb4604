"""`python -m tests.models.build --check`: load every built model with MLX and judge an answer.

Expected values come from outside: plain facts, the example of the sentence-transformers
documentation, and for speech a loop in which one model has to understand the other.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from tests.models import model_path

Samples = npt.NDArray[np.float32]

# IPA as Kokoro's vocabulary spells it, so that no text-to-phoneme package is needed.
_PHONEMES: Final = "pˈæɹɪs ɪz ɪn fɹˈæns."  # noqa: RUF001
_SPOKEN: Final = "Paris is in France."
_VOICE: Final = "jf_alpha"

# https://sbert.net, "Quickstart": cosines of this very model.
_SENTENCES: Final = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
_COSINES: Final = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}


class CheckFailed(Exception):
    """The model loads and answers, and the answer is wrong."""


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    name: str
    state: Literal["ok", "FAILED", "skipped"]
    seconds: float
    detail: str


def main(arguments: Sequence[str]) -> int:
    """Check the models named after the folder they are in; 1 if one fails."""
    root, names = Path(arguments[0]), arguments[1:]
    verdicts = [judge(name, check, root) for name, check in CHECKS.items() if name in names]
    for verdict in verdicts:
        print(f"{verdict.name:<18} {verdict.state:<8} {verdict.seconds:5.1f} s  {verdict.detail}")
    return 1 if any(verdict.state == "FAILED" for verdict in verdicts) else 0


def judge(name: str, check: Callable[[Path], str], root: Path) -> Verdict:
    """Run one check; whatever goes wrong in it becomes part of the table."""
    started = time.monotonic()
    state: Literal["ok", "FAILED", "skipped"]
    try:
        state, detail = "ok", check(root)
    except ImportError as error:
        state, detail = "skipped", f"{error}; install mlx-audio to check it"
    except Exception as error:  # noqa: BLE001 - the table is where it is reported
        state, detail = "FAILED", f"{type(error).__name__}: {error}"
    return Verdict(name, state, time.monotonic() - started, detail)


def _check_chat(name: str, root: Path) -> str:
    mlx_lm: Any = importlib.import_module("mlx_lm")
    model, tokenizer = mlx_lm.load(str(model_path(name, root)))
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    answer = str(mlx_lm.generate(model, tokenizer, prompt, max_tokens=20))
    if "Paris" not in answer:
        raise CheckFailed(f"the capital of France should be Paris, not {answer!r}")
    return repr(answer)


def _check_smollm2_4bit(root: Path) -> str:
    return _check_chat("smollm2-135m-4bit", root)


def _check_smollm2_f32(root: Path) -> str:
    return _check_chat("smollm2-135m-f32", root)


def _check_minilm(root: Path) -> str:
    vectors = _embed(model_path("all-MiniLM-L6-v2", root), _SENTENCES)
    found = {pair: float(vectors[pair[0]] @ vectors[pair[1]]) for pair in _COSINES}
    for pair, expected in _COSINES.items():
        if abs(found[pair] - expected) > 1e-3:
            raise CheckFailed(f"cosine of sentences {pair} is {found[pair]:.4f}, not {expected}")
    return "cosines " + ", ".join(f"{value:.4f}" for value in found.values())


def _embed(folder: Path, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit vectors [sentences, 384]."""
    bert: Any = importlib.import_module("mlx_vlm.models.bert")
    tokenizers: Any = importlib.import_module("tokenizers")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = bert.Model(bert.ModelConfig.from_dict(config))
    weights = mx.load(str(folder / "model.safetensors"))
    model.load_weights(list(model.sanitize(weights).items()))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode_batch(list(sentences))
    ids = mx.array([each.ids for each in encoded])
    mask = mx.array([each.attention_mask for each in encoded])
    return np.array(model(ids, mask).text_embeds)


def _check_kokoro(root: Path) -> str:
    samples = _speech(root)
    seconds, loudness = len(samples) / 16000, float(np.sqrt(np.mean(samples**2)))
    if not 1.0 < seconds < 4.0 or not 0.01 < loudness < 0.5:
        raise CheckFailed(f"{seconds:.2f} s at {loudness:.4f} RMS is not a spoken sentence")
    return f"{seconds:.2f} s of audio, {loudness:.3f} RMS"


def _check_whisper(root: Path) -> str:
    samples = _speech(root)
    stt: Any = importlib.import_module("mlx_audio.stt")
    model = stt.load(str(model_path("whisper-tiny.en", root)))
    _compute_in_float32(model)
    audio = mx.array(samples)
    heard = str(model.generate(audio, fp16=False, language="en", temperature=0.0).text).strip()
    if heard.casefold() != _SPOKEN.casefold():
        raise CheckFailed(f"{_SPOKEN!r} was heard as {heard!r}")
    return f"heard {heard!r}"


@cache
def _speech(root: Path) -> Samples:
    """The sentence spoken by Kokoro, 16 kHz mono. Slow on Linux: MLX's dilated convolutions."""
    signal: Any = importlib.import_module("scipy.signal")
    tts: Any = importlib.import_module("mlx_audio.tts.utils")
    folder = model_path("kokoro-82m", root)
    model = tts.load_model(folder)
    voice: Any = mx.load(str(folder / "voices" / f"{_VOICE}.safetensors"))
    mx.random.seed(0)  # the vocoder's excitation is noise
    style = voice["voice"][len(_PHONEMES) - 1]
    spoken = model(_PHONEMES, style, 1.0, return_output=True)
    at_24_khz = np.array(spoken.audio).ravel()
    return np.asarray(signal.resample_poly(at_24_khz, 2, 3), dtype=np.float32)


def _compute_in_float32(whisper: Any) -> None:
    """mlx_audio builds Whisper in float16 without a choice, which Linux CPUs are slow at."""
    whisper.dtype = mx.float32
    whisper.set_dtype(mx.float32)
    # Derived constants that are no parameters, so `set_dtype` misses them.
    positions, mask = whisper.encoder._positional_embedding, whisper.decoder._mask
    whisper.encoder._positional_embedding = positions.astype(mx.float32)
    whisper.decoder._mask = mask.astype(mx.float32)


CHECKS: Final[dict[str, Callable[[Path], str]]] = {
    "smollm2-135m-4bit": _check_smollm2_4bit,
    "smollm2-135m-f32": _check_smollm2_f32,
    "all-MiniLM-L6-v2": _check_minilm,
    "kokoro-82m": _check_kokoro,
    "whisper-tiny.en": _check_whisper,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
