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

FinishReason = Literal["stop", "length", "tool_calls"]


# --- what clients send --------------------------------------------------------


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

    Attributes:
        lease: As granted by the daemon.
        request: The caller's id, for logs only.
        messages: A conversation, rendered with the model's chat template…
        prompt: …or a plain prompt (text or token ids), taken as it is.
        template_kwargs: Extra variables of the chat template.
        max_tokens: None means up to the context's end.
        stop: Texts at which to stop; none of them is ever emitted.
        logprobs: How many alternatives a token; None means no log probabilities.
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


DataRequest = Generate


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


class Delta(Frame, tag="delta", omit_defaults=True, frozen=True, kw_only=True):
    """What one decode step added; never empty of all of its fields.

    Attributes:
        text: Visible text, complete characters only, never part of a stop text.
        reasoning: Thinking, split off by the model's own markers.
        tool_calls: Whole calls, once their text is complete and parsed.
        tokens: Tokens decoded so far.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: int = 0


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


# --- the daemon's link to a worker ----------------------------------------------


class Begin(Frame, tag="begin", frozen=True, kw_only=True):
    """Load this model. Sent once ``worker.spawned`` is durable; until then a worker
    loads nothing, and without it ends itself after 60 s.

    Attributes:
        name: What people call the model.
        path: The model folder, absolute and real.
        kind: Which engine: "text", "vision", "embeddings", "speech", "transcription".
        weights_bytes: For the progress of loading.
        kv_tokens: Rows times the longest row may not pass this; requests wait instead.
        context_tokens: Longest prompt + answer of one request.
        rows_max: Most requests decoded at once.
        detach_grace_s: How long to live without a daemon.
    """

    name: str
    path: str
    kind: str
    adapter: str | None = None
    weights_bytes: int
    kv_tokens: int
    context_tokens: int
    rows_max: int
    cache_bytes_max: int
    detach_grace_s: float = 600.0


class Drain(Frame, tag="drain", frozen=True, kw_only=True):
    """Close admission if nothing runs: answered :class:`Drained`, else :class:`StillBusy`."""


class Retire(Frame, tag="retire", frozen=True, kw_only=True):
    """Close admission, finish what runs within ``grace_s``, free the model, exit 0."""

    reason: str
    grace_s: float = 0.0


LinkCommand = Begin | Drain | Retire


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
    | UsageReport
    | Drained
    | StillBusy
    | Bye
)
