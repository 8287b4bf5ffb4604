"""Messages of a worker's socket: the data plane, and the daemon's link to its worker.

A client's connection carries one request: :class:`Hello` and :class:`Welcome`, one
request frame, then :class:`Accepted` or :class:`Fail`, deltas (one frame a decode
step), and one terminal frame: :class:`Done` or :class:`Fail`. Closing the connection
cancels. The daemon's connection (role "daemon") carries the second half of this file.
"""

from typing import Any, Literal

import msgspec

from daemon.wire.control import Frame
from daemon.wire.errors import Fault
from daemon.wire.forms import Constraint

FinishReason = Literal["stop", "length", "tool_calls"]


class TextPart(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image", tag_field="type"):
    """An encoded picture file (PNG, JPEG, WebP or GIF); the worker decodes it."""

    data: bytes


ContentPart = TextPart | ImagePart


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model made; ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn. Parts keep their order: a picture stands where the user put it."""

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[ContentPart, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn; None takes the model's own default, else the neutral value."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None


class Generate(Frame, tag="generate", omit_defaults=True, frozen=True, kw_only=True):
    """Generate text from a conversation or from a plain prompt.

    ``constraint``, ``call_one_of``, ``tool_calls_max`` and ``strict_tools`` belong to the
    capability "structured", ``logprobs`` to "logprobs", ``reasoning_tokens_max`` to
    "thinking_budget": a client names those as needs of its lease.

    Attributes:
        lease: As granted by the daemon.
        request: The caller's id, for logs only.
        messages: A conversation, rendered with the model's chat template…
        prompt: …or a plain prompt (text or token ids), taken as it is.
        template_kwargs: Extra variables of the chat template.
        max_tokens: None means up to the context's end.
        stop: Texts at which to stop; none of them is ever emitted.
        logprobs: How many alternatives a token; None means no log probabilities.
        constraint: What the visible text has to be; thinking before it is free.
        call_one_of: Names of tools, one of which has to be called; empty leaves it open.
        tool_calls_max: The answer ends after so many calls; None is no bound.
        strict_tools: Names of tools whose arguments have to follow their schema.
        reasoning_tokens_max: Thinking is closed after so many tokens; None is no bound.
        priority: Above 0 is served before the others that wait for a row, below 0 after them.
    """

    lease: str
    request: str = ""
    messages: tuple[ChatMessage, ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    template_kwargs: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    call_one_of: tuple[str, ...] = ()
    tool_calls_max: int | None = None
    strict_tools: tuple[str, ...] = ()
    reasoning_tokens_max: int | None = None
    priority: int = 0


DataRequest = Generate


class CountTokens(Frame, tag="count_tokens", omit_defaults=True, frozen=True, kw_only=True):
    """Count a conversation's tokens as :class:`Generate` would; answered by :class:`TokenCount`.

    The fields are those of :class:`Generate`.
    """

    lease: str
    request: str = ""
    messages: tuple[ChatMessage, ...]
    template_kwargs: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()


class Embed(Frame, tag="embed", omit_defaults=True, frozen=True, kw_only=True):
    """One vector for each input: :class:`Accepted`, :class:`Embeddings` …, :class:`Done`.

    Attributes:
        inputs: Texts, or token ids that are taken as they are; one or more, none of them empty.
        dimensions: Keep so many leading numbers of each vector and bring it back to length 1;
            more than the model has is refused with the field ``dimensions``.
    """

    lease: str
    request: str = ""
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None


AudioFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]


class Speak(Frame, tag="speak", omit_defaults=True, frozen=True, kw_only=True):
    """Text to speech: :class:`Accepted`, :class:`Audio` …, :class:`Done`.

    Attributes:
        voice: One of the model's voices; an unknown one is refused with the field ``voice``.
        format: What the bytes of the audio frames, joined, are a file of; "pcm" is 16-bit
            little-endian mono without a header.
        speed: 1 is the voice's own pace, 2 takes half as long.
        instructions: How to speak, for models that take it; others refuse it by that name.
    """

    lease: str
    request: str = ""
    text: str
    voice: str
    format: AudioFormat = "wav"
    speed: float = 1.0
    instructions: str | None = None


class Transcribe(Frame, tag="transcribe", omit_defaults=True, frozen=True, kw_only=True):
    """Speech to text: :class:`Accepted`, :class:`Transcript` …, :class:`Done`.

    Attributes:
        audio: An encoded sound file; the worker finds out its format and decodes it.
        language: ISO 639-1, such as "en"; None lets the model find out.
        prompt: Text that is taken to have been said before.
        temperature: 0 is greedy.
        words: Whether each segment's words are wanted, with their times.
    """

    lease: str
    request: str = ""
    audio: bytes
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    words: bool = False


WorkRequest = Generate | CountTokens | Embed | Speak | Transcribe
"""Every request that a worker of some kind serves."""


# --- what workers answer --------------------------------------------------------


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counted by the engine, never estimated."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose KV came from a cache."""
    prefill_ms: int = 0
    decode_ms: int = 0


class Accepted(Frame, tag="accepted", frozen=True, kw_only=True):
    """The request is valid and in line; nothing known to be wrong remains."""

    prompt_tokens: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A token that could have come; ``token`` is its UTF-8, maybe a part of a character."""

    token: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The token that came, its log probability, and the likeliest in its place, best first."""

    token: bytes
    logprob: float
    top: tuple[Candidate, ...] = ()


class Delta(Frame, tag="delta", omit_defaults=True, frozen=True, kw_only=True):
    """What one decode step added; never empty of all of its fields.

    Attributes:
        text: Visible text, complete characters only, never part of a stop text.
        reasoning: Thinking, split off by the model's own markers.
        tool_calls: Whole calls, once their text is complete and parsed.
        tokens: Tokens decoded so far.
        logprobs: Of the tokens of the visible text that this step decoded, if asked for.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Done(Frame, tag="done", omit_defaults=True, frozen=True, kw_only=True):
    """Terminal: the request ended well.

    Attributes:
        stop_text: Which stop text ended it, if one did.
    """

    finish_reason: FinishReason
    usage: Usage
    stop_text: str | None = None


class Fail(Frame, tag="fail", frozen=True, kw_only=True):
    """Terminal: the request ended with an error; what was sent before stays true."""

    fault: Fault


DataAnswer = Accepted | Delta | Done | Fail


class TokenCount(Frame, tag="token_count", frozen=True, kw_only=True):
    """Terminal: the whole answer to :class:`CountTokens`."""

    prompt_tokens: int


class Embeddings(Frame, tag="embeddings", frozen=True, kw_only=True):
    """The vectors of the next inputs, in the order of the inputs; at most 1 MiB a frame.

    Attributes:
        vectors: 32-bit floats, little-endian; one bytes object an input.
    """

    vectors: tuple[bytes, ...]


class Audio(Frame, tag="audio", frozen=True, kw_only=True):
    """The next bytes of the sound, at most 1 MiB a frame."""

    data: bytes


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A spoken word, as it stands in the text; times in seconds from the beginning."""

    text: str
    start_s: float
    end_s: float


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stretch of speech; segments' texts joined are the whole transcript.

    Attributes:
        text: With the blank that parts it from the one before.
        seek: Where the window that it was heard in begins, in frames of 10 ms.
        avg_logprob: Mean log probability of its tokens.
        no_speech_prob: How likely nobody speaks here.
    """

    text: str
    start_s: float
    end_s: float
    seek: int = 0
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] = ()


class Transcript(Frame, tag="transcript", omit_defaults=True, frozen=True, kw_only=True):
    """What was understood since the frame before.

    Attributes:
        segments: Ended stretches, in order of time.
        language: ISO 639-1, as given or as found out; in the first frame.
        duration_s: Length of the sound; in the first frame.
    """

    segments: tuple[Segment, ...] = ()
    language: str = ""
    duration_s: float = 0.0


WorkAnswer = Accepted | Delta | TokenCount | Embeddings | Audio | Transcript | Done | Fail
"""Every answer of a worker of some kind."""


# --- the daemon's link to a worker ----------------------------------------------


class Begin(Frame, tag="begin", frozen=True, kw_only=True):
    """Load this model. Sent once ``worker.spawned`` is durable; until then a worker
    loads nothing, and without it ends itself after 60 s.

    Attributes:
        name: What people call the model.
        path: The model folder, absolute and real.
        allow_code: Whether Python files of that folder may run.
        draft: The folder of a smaller model that guesses ``draft_tokens`` of its tokens at a time.
        kind: Which engine: "text", "vision", "embeddings", "speech", "transcription".
        weights_bytes: For the progress of loading.
        kv_tokens: Rows times the longest row may not pass this; requests wait instead.
        kv_bytes: What the caches of running rows, and those kept of earlier ones, may take
            together: what rows do not use is there for keeping.
        context_tokens: Longest prompt + answer of one request.
        rows_max: Most requests decoded at once.
        cache_bytes_max: Freed buffers that the library may hold for reuse.
        yields: Load at a low priority: other models answer requests.
        identity: Of its files, its adapter's and its draft's; changes when they do.
        prefix_dir: Where computed prompts outlive the worker; None for nowhere.
        prefix_disk_bytes: The most that all models together may take there.
        detach_grace_s: How long to live without a daemon.
    """

    name: str
    path: str
    kind: str
    adapter: str | None = None
    allow_code: bool = False
    draft: str | None = None
    draft_tokens: int = 3
    weights_bytes: int
    kv_tokens: int
    kv_bytes: int = 0
    context_tokens: int
    rows_max: int
    cache_bytes_max: int
    yields: bool = False
    identity: str = ""
    prefix_dir: str | None = None
    prefix_disk_bytes: int = 0
    detach_grace_s: float = 600.0


class Drain(Frame, tag="drain", frozen=True, kw_only=True):
    """Close admission if nothing runs: answered :class:`Drained`, else :class:`StillBusy`."""


class Trim(Frame, tag="trim", frozen=True, kw_only=True):
    """Memory is short: drop what is only kept for later requests."""


class Retire(Frame, tag="retire", frozen=True, kw_only=True):
    """Close admission, finish what runs within ``grace_s``, free the model, exit 0."""

    reason: str
    grace_s: float = 0.0


LinkCommand = Begin | Drain | Trim | Retire


class Hosting(Frame, tag="hosting", frozen=True, kw_only=True):
    """First report on every link: what this worker is doing, so that it can be adopted.

    Attributes:
        phase: "waiting" for begin, "loading", "ready", or "draining" (admission closed).
        path: The model folder; empty while waiting.
        leases: The leases that running requests named.
    """

    worker: str
    pid: int
    phase: Literal["waiting", "loading", "ready", "draining"]
    path: str = ""
    measured_bytes: int = 0
    context_tokens: int = 0
    running: int = 0
    leases: tuple[str, ...] = ()


class LoadProgress(Frame, tag="load_progress", frozen=True, kw_only=True):
    done_bytes: int
    total_bytes: int


class Ready(Frame, tag="ready", frozen=True, kw_only=True):
    """The model is loaded; ``measured_bytes`` is what the process now holds for it."""

    measured_bytes: int
    load_ms: int
    context_tokens: int


class LoadFailed(Frame, tag="load_failed", frozen=True, kw_only=True):
    """The model cannot be loaded; the worker exits after saying so."""

    reason: Literal["incompatible", "out_of_memory", "crashed"]
    message: str


class Running(Frame, tag="running", frozen=True, kw_only=True):
    """Sent at every change of what runs.

    Attributes:
        running: Requests accepted and not yet ended.
        leases: The leases that those requests named.
    """

    running: int
    leases: tuple[str, ...] = ()


class Measured(Frame, tag="measured", frozen=True, kw_only=True):
    """Memory held now, sent when it has changed by a notable amount."""

    measured_bytes: int


class Written(Frame, tag="written", frozen=True, kw_only=True):
    """Completion tokens since the load, and the time of the steps that gave any.

    At most once a second, and only while requests run.
    """

    tokens: int
    writing_ms: int


class UsageReport(Frame, tag="usage_report", frozen=True, kw_only=True):
    """One finished request, for the daemon's usage records."""

    prompt_tokens: int
    completion_tokens: int
    started_at_ms: int
    """On the worker's wall clock."""
    busy_ms: int


class Drained(Frame, tag="drained", frozen=True, kw_only=True):
    """Nothing runs and nothing will: the worker may be stopped."""


class StillBusy(Frame, tag="still_busy", frozen=True, kw_only=True):
    """Requests run; admission stays open."""

    running: int


class Bye(Frame, tag="bye", frozen=True, kw_only=True):
    """The worker is about to exit in good order."""

    reason: str


LinkReport = (
    Hosting
    | LoadProgress
    | Ready
    | LoadFailed
    | Running
    | Measured
    | Written
    | UsageReport
    | Drained
    | StillBusy
    | Bye
)
