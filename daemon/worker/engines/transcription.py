"""Speech to text: Whisper, on mlx_audio's model.

The model hears windows of 30 seconds. How they follow one another, when a window is heard
again at a higher temperature, and when it counts as silence is the algorithm of the
reference implementation (openai/whisper, ``transcribe.py``); a window is one piece of work.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
import numpy as np
from mlx_audio.stt.models.whisper.audio import (
    HOP_LENGTH,
    N_FRAMES,
    SAMPLE_RATE,
    pad_or_trim,
)
from mlx_audio.stt.models.whisper.decoding import DecodingOptions
from mlx_audio.stt.models.whisper.timing import add_word_timestamps
from mlx_audio.stt.utils import load_model

from daemon.wire.data import Begin, Segment, Transcribe, Transcript, Word, WorkRequest
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.conversation import invalid
from daemon.worker.engines.jobs import Job, JobEngine, JobModel
from daemon.worker.engines.sound import sound_pieces
from daemon.worker.engines.spectrogram import Spectrogram
from daemon.worker.engines.weights import read_weights

TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Tried in turn until a window is understood; the reference's, for temperature 0."""

COMPRESSION_MAX: Final = 2.4
LOGPROB_MIN: Final = -1.0
NO_SPEECH_MIN: Final = 0.6
PROMPT_RESET_TEMPERATURE: Final = 0.5


class TranscriptionEngine(JobEngine):
    """One Whisper."""

    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        folder = Path(begin.path)
        if config.get("model_type", "whisper") != "whisper":
            raise LoadRefused(
                "incompatible",
                f'{folder / "config.json"}: models of type "{config["model_type"]}" cannot be '
                "served yet; for transcription use a Whisper",
            )
        model = load_model(folder, lazy=True)
        if mx.default_device().type == mx.DeviceType.cpu:
            _compute_in_float32(model)
        read_weights(model, progress)
        if model._processor is None:  # noqa: SLF001  (the only place where it is)
            raise LoadRefused("incompatible", f"{folder} has no tokenizer that can be read")
        return _Whisper(model, begin.name)


def _compute_in_float32(model: Any) -> None:
    """The library makes every Whisper float16, which CPUs are slow at and wrong with."""
    model.dtype = mx.float32
    model.set_dtype(mx.float32)
    # Constants that are no parameters, so that `set_dtype` misses them.
    encoder, decoder = model.encoder, model.decoder
    encoder._positional_embedding = encoder._positional_embedding.astype(mx.float32)  # noqa: SLF001
    decoder._mask = decoder._mask.astype(mx.float32)  # noqa: SLF001


class _Whisper(JobModel):
    does = "transcribes speech"

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self._name = name

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        """Decodes the sound and keeps nothing: what is wrong with it is said before it waits."""
        if not isinstance(request, Transcribe):
            return None

        def checked() -> WorkRequest:
            for _ in sound_pieces(request.audio, SAMPLE_RATE, "audio"):
                pass
            return request

        return checked

    def accept(self, request: WorkRequest) -> Job | None:
        if not isinstance(request, Transcribe):
            return None
        if not (math.isfinite(request.temperature) and 0 <= request.temperature <= 1):
            raise invalid("temperature must be between 0 and 1", "temperature")
        self._check_language(request.language)
        next(sound_pieces(request.audio, SAMPLE_RATE, "audio"))
        prompt = self._prompt(request.prompt)
        return Job(len(prompt), lambda job: self._run(job, request, prompt), len(request.audio))

    def _check_language(self, language: str | None) -> None:
        known = self._tokenizer("en").all_language_codes if self._model.is_multilingual else ("en",)
        if language is not None and language not in known:
            raise invalid(
                f'"{self._name}" does not know the language "{language}"; it knows '
                f"{', '.join(known)}",
                "language",
            )

    def _prompt(self, text: str | None) -> list[int]:
        return self._tokenizer("en").encode(" " + text.strip()) if text and text.strip() else []

    def _tokenizer(self, language: str) -> Any:
        return self._model.get_tokenizer(language=language, task="transcribe")

    def _run(self, job: Job, request: Transcribe, prompt: list[int]) -> Iterator[Transcript | None]:
        """A frame a window; the first also says the language and the length."""
        mel = Spectrogram(request.audio, self._model.dims.n_mels)
        yield from mel.measure()
        language = request.language or self._model._detect_language(  # noqa: SLF001
            mel.part(0, N_FRAMES)
        )
        yield Transcript(language=language, duration_s=mel.samples / SAMPLE_RATE)
        hearing = _Hearing(self._model, self._tokenizer(language), request, language, prompt)
        while hearing.seek < mel.frames:
            segments = hearing.window(mel)
            job.completion_tokens += sum(len(segment.tokens) for segment in segments)
            yield Transcript(segments=segments) if segments else None


class _Window(msgspec.Struct, frozen=True):
    """A stretch of the spectrogram, in frames of 10 ms."""

    begin: int
    size: int
    mel: Any


class _Hearing:
    """One sound on its way through the windows.

    Attributes:
        seek: Where the next window begins, in frames of 10 ms.
    """

    def __init__(
        self, model: Any, tokenizer: Any, request: Transcribe, language: str, prompt: list[int]
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._request = request
        self._language = language
        self._said = list(prompt)
        self._stride = N_FRAMES // model.dims.n_audio_ctx
        self._last_speech_s = 0.0
        self.seek = 0

    def window(self, mel: Spectrogram) -> tuple[Segment, ...]:
        """Hear the next window; moves ``seek`` behind what was understood."""
        size = min(N_FRAMES, mel.frames - self.seek)
        part = pad_or_trim(mel.part(self.seek, size), N_FRAMES, axis=-2)
        window = _Window(self.seek, size, part.astype(self._model.dtype))
        result = self._decode(window.mel)
        if result.no_speech_prob > NO_SPEECH_MIN and result.avg_logprob <= LOGPROB_MIN:
            self.seek += size
            return ()
        found, advance = self._cut(window, result)
        self.seek += max(1, advance)
        if self._request.words:
            self._add_words(window, found, ended=advance == size)
        heard = [one for one in found if one["text"].strip() and one["start"] != one["end"]]
        if result.temperature > PROMPT_RESET_TEMPERATURE:
            self._said = []
        else:
            self._said += [token for one in heard for token in one["tokens"]]
        return tuple(_segment(one, window.begin, result) for one in heard)

    def _decode(self, mel: Any) -> Any:
        """The window's tokens, at the first temperature that gives sense."""
        asked = self._request.temperature
        result = None
        for temperature in TEMPERATURES if asked == 0 else (asked,):
            options = DecodingOptions(
                language=self._language,
                temperature=temperature,
                prompt=list(self._said),
                fp16=self._model.dtype == mx.float16,
            )
            result = self._model.decode(mel, options)
            silent = result.no_speech_prob > NO_SPEECH_MIN
            doubtful = result.avg_logprob < LOGPROB_MIN
            if silent and doubtful:
                break
            if not doubtful and result.compression_ratio <= COMPRESSION_MAX:
                break
        return result

    def _cut(self, window: _Window, result: Any) -> tuple[list[dict[str, Any]], int]:
        """The window's segments by their time stamps, and by how much to move on."""
        tokens = np.array(result.tokens)
        stamps = tokens >= self._tokenizer.timestamp_begin
        ends_with_one = stamps[-2:].tolist() == [False, True]
        pairs = (np.where(stamps[:-1] & stamps[1:])[0] + 1).tolist()
        if not pairs:
            return self._whole(window, tokens, stamps), window.size
        cuts = [*pairs, len(tokens)] if ends_with_one else pairs
        segments = [
            self._stretch(window, tokens[begin:end])
            for begin, end in zip([0, *cuts], cuts, strict=False)
        ]
        if ends_with_one:
            return segments, window.size
        last = int(tokens[cuts[-1] - 1]) - self._tokenizer.timestamp_begin
        return segments, last * self._stride

    def _whole(self, window: _Window, tokens: Any, stamps: Any) -> list[dict[str, Any]]:
        """A window without two time stamps in a row is one segment."""
        first = self._tokenizer.timestamp_begin
        times = tokens[stamps]
        end_s = window.size * HOP_LENGTH / SAMPLE_RATE
        if len(times) and int(times[-1]) != first:
            end_s = (int(times[-1]) - first) * self._stamp_s
        return [self._made(window, 0.0, end_s, tokens)]

    def _stretch(self, window: _Window, tokens: Any) -> dict[str, Any]:
        """Tokens between two time stamps, with the stamps."""
        first = self._tokenizer.timestamp_begin
        begin_s, end_s = ((int(token) - first) * self._stamp_s for token in tokens[[0, -1]])
        return self._made(window, begin_s, end_s, tokens)

    def _made(self, window: _Window, begin_s: float, end_s: float, tokens: Any) -> dict[str, Any]:
        """In the form in which the library adds words."""
        offset_s = window.begin * HOP_LENGTH / SAMPLE_RATE
        spoken = [token for token in tokens.tolist() if token < self._tokenizer.eot]
        return {
            "seek": window.begin,
            "start": offset_s + begin_s,
            "end": offset_s + end_s,
            "text": self._tokenizer.decode(spoken),
            "tokens": tokens.tolist(),
        }

    def _add_words(self, window: _Window, found: list[dict[str, Any]], *, ended: bool) -> None:
        """Words with their times; the next window begins behind the last one."""
        add_word_timestamps(
            segments=found,
            model=self._model,
            tokenizer=self._tokenizer,
            mel=window.mel,
            num_frames=window.size,
            last_speech_timestamp=self._last_speech_s,
        )
        last = next((one["words"][-1] for one in reversed(found) if one.get("words")), None)
        if last is None:
            return
        self._last_speech_s = float(last["end"])
        end = round(self._last_speech_s * SAMPLE_RATE / HOP_LENGTH)
        if not ended and end > window.begin:
            self.seek = end

    @property
    def _stamp_s(self) -> float:
        """What one time stamp more means."""
        stamp_s: float = self._stride * HOP_LENGTH / SAMPLE_RATE
        return stamp_s


def _segment(one: dict[str, Any], seek: int, result: Any) -> Segment:
    return Segment(
        text=one["text"],
        start_s=float(one["start"]),
        end_s=float(one["end"]),
        seek=seek,
        tokens=tuple(one["tokens"]),
        temperature=float(result.temperature),
        avg_logprob=float(result.avg_logprob),
        compression_ratio=float(result.compression_ratio),
        no_speech_prob=float(result.no_speech_prob),
        words=tuple(
            Word(text=word["word"], start_s=float(word["start"]), end_s=float(word["end"]))
            for word in one.get("words", ())
        ),
    )
