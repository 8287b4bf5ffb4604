"""How a window's tokens become segments; hearing itself is in test_speech."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_audio.stt.models.whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

from daemon.wire.data import Begin, Done, Transcribe, Transcript
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines import sound
from daemon.worker.engines.base import LoadRefused, Progress
from daemon.worker.engines.jobs import JOBS_MAX, JobModel
from daemon.worker.engines.sound import sound_pieces, to_pcm, wav_file
from daemon.worker.engines.transcription import (
    TranscriptionEngine,
    _Hearing,
    _Whisper,
    _Window,
)
from tests.contract.bench import begin
from tests.contract.jobs import JobBench
from tests.contract.tiny import build_embedding_model

STAMP = 1000
"""Tokens from here on are time stamps of 20 ms each; a letter's token is its code."""


class Tokenizer:
    """The part of Whisper's tokenizer that segments need."""

    timestamp_begin = STAMP
    eot = 500

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def hearing() -> _Hearing:
    model: Any = SimpleNamespace(dims=SimpleNamespace(n_audio_ctx=1500))
    return _Hearing(model, Tokenizer(), Transcribe(lease="l", audio=b""), "en", [])


def cut(*tokens: int | str, begin: int = 0, size: int = 3000) -> tuple[list[Any], int]:
    flat = [t for one in tokens for t in (map(ord, one) if isinstance(one, str) else (one,))]
    result = SimpleNamespace(tokens=flat)
    segments, advance = hearing()._cut(_Window(begin, size, None), result)
    return [(one["text"], one["start"], one["end"]) for one in segments], advance


def test_stamps_in_pairs_part_segments_and_the_rest_is_heard_again() -> None:
    segments, advance = cut(
        STAMP, " a", STAMP + 50, STAMP + 50, " b", STAMP + 100, STAMP + 100, "x"
    )
    assert segments == [(" a", 0.0, 1.0), (" b", 1.0, 2.0)]
    assert advance == 200, "2 seconds, in frames of 10 ms"


def test_a_single_stamp_at_the_end_means_that_nothing_follows() -> None:
    segments, advance = cut(STAMP, " a", STAMP + 50, STAMP + 60, " b", STAMP + 100)
    assert segments == [(" a", 0.0, 1.0), (" b", 1.2, 2.0)]
    assert advance == 3000


def test_without_pairs_the_window_is_one_segment() -> None:
    assert cut(STAMP, " a", STAMP + 75) == ([(" a", 0.0, 1.5)], 3000)
    assert cut(STAMP, " a", size=800) == ([(" a", 0.0, 8.0)], 800)


def test_times_count_from_the_beginning_of_the_sound() -> None:
    segments, _ = cut(STAMP, " a", STAMP + 50, STAMP + 50, " b", STAMP + 100, begin=1000)
    assert segments == [(" a", 10.0, 11.0), (" b", 11.0, 12.0)]


def test_other_architectures_are_refused_by_name(tmp_path: Any) -> None:
    folder = build_embedding_model(tmp_path / "m")
    with pytest.raises(LoadRefused, match='"bert"'):
        TranscriptionEngine().load(begin(folder, "transcription"), lambda _a, _b: None)


class Listener:
    """The part of the library's Whisper that is used: it understands nothing, and notes what it
    was given to hear."""

    dims = SimpleNamespace(n_audio_ctx=1500, n_mels=80)
    is_multilingual = False
    dtype = mx.float32

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def get_tokenizer(self, **_: Any) -> Tokenizer:
        return Tokenizer()

    def _detect_language(self, mel: Any) -> str:
        self.heard.append(np.array(pad_or_trim(mel, 3000, axis=-2)))
        return "en"

    def decode(self, mel: Any, _options: Any) -> Any:
        self.heard.append(np.array(mel))
        return SimpleNamespace(no_speech_prob=1.0, avg_logprob=-2.0, compression_ratio=1.0)


class DeafEngine(TranscriptionEngine):
    """The real engine on a :class:`Listener`."""

    listener: Listener

    def open_model(self, begin: Begin, config: dict[str, Any], progress: Progress) -> JobModel:
        self.listener = Listener()
        return _Whisper(self.listener, "m")


@pytest.fixture
def deaf(tmp_path: Path) -> DeafEngine:
    engine = DeafEngine()
    folder = build_embedding_model(tmp_path / "m")
    engine.load(begin(folder, "transcription", rows_max=2), lambda _a, _b: None)
    return engine


def noise(seconds: float, rate: int = 16000) -> Transcribe:
    samples = np.random.default_rng(3).uniform(-0.3, 0.3, int(seconds * rate))
    return Transcribe(lease="l", audio=wav_file(to_pcm(samples), rate))


@pytest.mark.parametrize("seconds", [0.005, 0.5, 30, 95.3])
def test_what_is_heard_is_the_spectrogram_of_the_whole_sound(
    deaf: DeafEngine, seconds: float
) -> None:
    request = noise(seconds)
    result = JobBench(deaf).whole(request)
    assert isinstance(result.end, Done)
    samples = np.concatenate([*sound_pieces(request.audio, 16000, "audio")])
    assert [(one.language, one.duration_s) for one in result.frames] == [
        ("en", len(samples) / 16000)
    ]
    mel = log_mel_spectrogram(mx.array(samples), n_mels=80, padding=N_SAMPLES)
    frames = mel.shape[0] - 3000
    parts = [mel[:3000]] + [mel[at : min(frames, at + 3000)] for at in range(0, frames, 3000)]
    assert len(deaf.listener.heard) == len(parts)
    for heard, part in zip(deaf.listener.heard, parts, strict=True):
        expected = np.array(pad_or_trim(part, 3000, axis=-2))
        np.testing.assert_allclose(heard, expected, atol=1e-5)


def test_a_job_in_line_holds_the_file_and_no_samples(deaf: DeafEngine) -> None:
    request = noise(300, 1000)
    before = deaf.memory_bytes()
    tracemalloc.start()
    try:
        for number in range(8):
            deaf.submit(number, request)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 1 << 20, "the samples of one are 19 MB"
    assert deaf.memory_bytes() - before == 8 * len(request.audio), "in line, files are counted"
    for number in range(8):
        deaf.cancel(number)
    assert deaf.memory_bytes() == before


def test_a_long_sound_takes_no_more_memory_than_a_few_windows(deaf: DeafEngine) -> None:
    bench = JobBench(deaf)
    bench.whole(noise(61))  # what is computed once
    deaf.listener.heard.clear()
    result = bench.ask(noise(600, 1000))
    tracemalloc.start()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    try:
        while result.end is None:
            bench.step()
            deaf.listener.heard.clear()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result.end, Done)
    assert peak < 12 << 20, "all samples are 38 MB"
    assert mx.get_peak_memory() - before < 64 << 20, "of the whole sound at once it is 300 MB"


def test_a_step_of_a_long_sound_is_one_piece(deaf: DeafEngine) -> None:
    deaf.submit(1, noise(95, 1000))
    deaf.submit(2, noise(0.5))
    order = []
    for _ in range(40):
        for emission in deaf.step():
            order += [(emission.request_id, type(frame)) for frame in emission.frames]
        if not deaf.busy:
            break
    assert order == [(2, Transcript), (2, Done), (1, Transcript), (1, Done)]


def test_a_sound_is_measured_only_while_somebody_waits(deaf: DeafEngine) -> None:
    deaf.submit(1, noise(95, 1000))
    assert deaf.step() == []
    usage = deaf.cancel(1)
    assert usage is not None
    assert (deaf.busy, deaf.listener.heard) == (False, [])


def test_a_sound_is_checked_to_its_end_before_it_is_in_line(
    deaf: DeafEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = noise(6)
    work = deaf.ahead(request)
    assert work is not None
    assert work() is request
    monkeypatch.setattr(sound, "SOUND_S_MAX", 5)
    with pytest.raises(MlxdError, match="longer") as caught:
        work()
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "audio")
    with pytest.raises(MlxdError) as caught:
        deaf.submit(1, Transcribe(lease="l", audio=b"nonsense"))
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "audio")
    assert not deaf.busy


def test_when_the_line_is_full_no_sound_is_checked(deaf: DeafEngine) -> None:
    request = noise(0.1)
    for number in range(JOBS_MAX):
        deaf.submit(number, request)
    assert deaf.ahead(request) is None
    with pytest.raises(MlxdError, match="already wait"):
        deaf.submit(JOBS_MAX, request)
