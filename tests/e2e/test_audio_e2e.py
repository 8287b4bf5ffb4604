"""Speech and transcription over HTTP, with real models: Kokoro and Whisper.

The text is given as phonemes, which Kokoro reads with nothing else installed; one test says it in
letters, where the `speech` extra is there. Sentences are few and short: on a CPU a second of
speech takes several to compute.
"""
# ruff: noqa: RUF001  (Kokoro's alphabet)

import io
import re
import struct
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import httpx2 as httpx
import miniaudio  # type: ignore[import-untyped]
import numpy as np
import openai
import pytest

from tests.e2e.service import Service, config_toml, running_service
from tests.models import model_path

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.e2e_audio,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

VOICE = "jm_kumo"
RATE = 24_000
WORD = "/həlˈO./"
SENTENCE = "/ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ./"
SPOKEN = "The quick brown fox jumps over the lazy dog."

MAGIC = {"mp3": b"\xff", "flac": b"fLaC", "pcm": b"", "opus": b"OggS"}

Say = Callable[..., bytes]


@pytest.fixture(scope="module")
def sound() -> Iterator[Service]:
    """A service of its own, because the other has no sound models."""
    models = {"kokoro": model_path("kokoro-82m"), "whisper": model_path("whisper-tiny.en")}
    with running_service(config_toml(models)) as service:
        yield service


@pytest.fixture(scope="module")
def sdk(sound: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{sound.url}/v1", api_key="unused", max_retries=0, timeout=800
    ) as client:
        yield client


@pytest.fixture(scope="module")
def say(sdk: openai.OpenAI) -> Say:
    """Speech, remembered: each costs seconds."""
    known: dict[tuple[Any, ...], bytes] = {}

    def spoken(text: str, form: Any = "wav", speed: float = 1.0) -> bytes:
        key = (text, form, speed)
        if key not in known:
            reply = sdk.audio.speech.create(
                model="kokoro", voice=VOICE, input=text, response_format=form, speed=speed
            )
            known[key] = reply.read()
        return known[key]

    return spoken


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def pcm_of(wav: bytes) -> bytes:
    """The samples of a WAV file, after every field of its header was looked at."""
    riff, size, wave, fmt, fmt_size, codec, channels, rate, per_s, align, bits = struct.unpack(
        "<4sI4s4sIHHIIHH", wav[:36]
    )
    assert (riff, wave, fmt, fmt_size) == (b"RIFF", b"WAVE", b"fmt ", 16)
    assert (codec, channels, rate, per_s, align, bits) == (1, 1, RATE, 2 * RATE, 2, 16)
    data, data_size = struct.unpack("<4sI", wav[36:44])
    assert (data, data_size, size) == (b"data", len(wav) - 44, len(wav) - 8)
    return wav[44:]


def seconds(wav: bytes) -> float:
    return len(pcm_of(wav)) / 2 / RATE


def loudness(pcm: bytes) -> Any:
    """Of each 20 ms; the samples themselves differ, for Kokoro's voices have noise in them."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    step = RATE // 50
    return np.sqrt((samples[: len(samples) // step * step].reshape(-1, step) ** 2).mean(axis=1))


def alike(one: bytes, other: bytes) -> bool:
    """Whether ``one`` is the same word, as long and as loud at each moment; MP3 begins later."""
    first, second = loudness(one), loudness(other)
    together = []
    for late in range(6):
        length = min(len(first) - late, len(second))
        together.append(np.corrcoef(first[late : late + length], second[:length])[0, 1])
    return abs(len(first) - len(second)) <= 6 and max(together) > 0.8


def test_a_wav_file_has_a_true_header_and_sound_in_it(say: Say) -> None:
    samples = memoryview(pcm_of(say(WORD))).cast("h")
    assert 0.4 < len(samples) / RATE < 3
    assert max(map(abs, samples)) > 1000, "not silence"


def test_a_longer_text_is_a_longer_sound(say: Say) -> None:
    assert seconds(say(SENTENCE)) > 1.5 * seconds(say(WORD))


def test_twice_the_speed_takes_half_as_long(say: Say) -> None:
    share = seconds(say(SENTENCE, speed=2.0)) / seconds(say(SENTENCE))
    assert 0.4 < share < 0.65


@pytest.mark.parametrize("form", ["mp3", "flac", "pcm", "opus"])
def test_every_format_holds_the_same_sound(say: Say, form: str) -> None:
    wav, data = pcm_of(say(WORD)), say(WORD, form)
    assert data.startswith(MAGIC[form])
    if form == "opus":
        assert data[28:36] == b"OpusHead"
        return
    pcm = data
    if form != "pcm":
        pcm = miniaudio.decode(data, nchannels=1, sample_rate=RATE).samples.tobytes()
    assert alike(pcm, wav)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"speed": 5}, "speed"),
        ({"speed": 0}, "speed"),
        ({"voice": "nobody"}, "voice"),
        ({"response_format": "midi"}, "response_format"),
        ({"instructions": "whisper"}, "instructions"),
        ({"input": "/ß/"}, "input"),
        ({"model": "whisper"}, "model"),
    ],
)
def test_a_bad_wish_is_a_typed_error(
    sdk: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    asked: dict[str, Any] = {"model": "kokoro", "voice": VOICE, "input": WORD, **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.audio.speech.create(**asked)
    assert caught.value.param == param


def test_sound_is_streamed_as_events(sound: Service, say: Say) -> None:
    body = {"model": "kokoro", "voice": VOICE, "input": WORD, "response_format": "pcm"}
    with (
        httpx.Client(base_url=sound.url, timeout=800) as http,
        http.stream("POST", "/v1/audio/speech", json={**body, "stream_format": "sse"}) as reply,
    ):
        lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
    assert '"speech.audio.delta"' in lines[0].replace(" ", "")
    assert '"speech.audio.done"' in lines[-1].replace(" ", "")


@pytest.mark.anyio
async def test_the_async_sdk_reads_sound_as_it_comes(sound: Service, say: Say) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{sound.url}/v1", api_key="unused", max_retries=0, timeout=800
    ) as sdk:
        async with sdk.audio.speech.with_streaming_response.create(
            model="kokoro", voice=VOICE, input=WORD, response_format="pcm"
        ) as reply:
            data = b"".join([part async for part in reply.iter_bytes()])
        assert alike(data, pcm_of(say(WORD)))
        heard = await sdk.audio.transcriptions.create(
            model="whisper", file=("hello.wav", say(WORD)), response_format="json"
        )
        assert "hello" in words(heard.text)


def test_what_is_spoken_is_understood(sdk: openai.OpenAI, say: Say) -> None:
    heard = sdk.audio.transcriptions.create(model="whisper", file=("fox.wav", say(SENTENCE)))
    assert words(heard.text) == words(SPOKEN)


@pytest.mark.skipif(
    find_spec("misaki") is None, reason='needs the extra: pip install "mlxd[speech]"'
)
def test_text_to_speech_to_text(sdk: openai.OpenAI, say: Say) -> None:
    heard = sdk.audio.transcriptions.create(model="whisper", file=("fox.wav", say(SPOKEN)))
    assert words(heard.text) == words(SPOKEN)


def test_every_form_of_a_transcript(sdk: openai.OpenAI, say: Say) -> None:
    def heard(form: Any, **fields: Any) -> Any:
        file = ("fox.wav", io.BytesIO(say(SENTENCE)))
        return sdk.audio.transcriptions.create(
            model="whisper", file=file, response_format=form, **fields
        )

    assert words(heard("text")) == words(SPOKEN)
    srt = heard("srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\s*The", srt), srt
    vtt = heard("vtt")
    assert re.match(r"WEBVTT\n\n00:0\d[:.]", vtt), vtt
    whole = heard("verbose_json", timestamp_granularities=["word", "segment"])
    assert whole.language in {"en", "english"}
    assert whole.duration == pytest.approx(seconds(say(SENTENCE)), abs=0.1)
    assert [words(word.word) for word in whole.words] == [[word] for word in words(SPOKEN)]
    starts = [word.start for word in whole.words]
    assert starts == sorted(starts)
    assert all(word.start <= word.end <= whole.duration + 0.1 for word in whole.words)
    assert words("".join(segment.text for segment in whole.segments)) == words(SPOKEN)


def test_a_streamed_transcript(sdk: openai.OpenAI, say: Say) -> None:
    file = ("fox.wav", say(SENTENCE))
    events = list(sdk.audio.transcriptions.create(model="whisper", file=file, stream=True))
    *deltas, done = events
    assert done.type == "transcript.text.done"
    assert "".join(e.delta for e in deltas if e.type == "transcript.text.delta") == done.text
    assert words(done.text) == words(SPOKEN)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no sound at all" * 100])
def test_what_is_no_sound_is_a_400(sdk: openai.OpenAI, data: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.audio.transcriptions.create(model="whisper", file=("x.wav", data))
    assert caught.value.param == "file"
