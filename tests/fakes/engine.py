"""An engine without a model, which misbehaves on request.

What it does is written in the model folder's ``config.json`` under ``"fake"``, as
:class:`FakeConfig`. Everything but the tokens themselves is the shipped code: rows, the
KV allowance, splitting at stop texts, emissions.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from daemon.wire.data import Begin, CountTokens, Generate, TextPart, Usage, WorkRequest
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.base import Emission, Loaded, LoadRefused, Progress, not_served
from daemon.worker.engines.conversation import (
    answer_tokens,
    check_request,
    invalid,
    refuse_images,
)
from daemon.worker.engines.output import TextOutput
from daemon.worker.engines.rows import Allowance, Row, RowFailed, Rows, Token
from daemon.worker.engines.splitting import Markers, Splitter

POISON_PREPARE = "poison:prepare"
POISON_ROW = "poison:row"
POISON_STEP = "poison:step"
"""Prompts that contain one of these fail: before the line, as a row, with the whole batch."""


class FakeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a fake model behaves.

    Attributes:
        reply: Every answer, over and over; None echoes the prompt once and then counts.
        repeat: Each token is its character this many times: fat frames.
        step_ms: Time of one decode step; it is slept, as a GPU would let the CPU sleep.
        load_ms: Time of loading, in ``load_steps`` steps with progress between them.
        weights_bytes: What it says that it holds.
        keeps_bytes: What it says that it keeps of each request until it is told to trim.
        crash: "load" or "step": the process kills itself while it loads, or in the decode
            step after ``trouble_after_steps``.
        hang: The same, but it stops doing anything, deaf to SIGTERM as a stuck GPU is.
        refuse: Loading fails with this reason, "incompatible" or "out_of_memory".
        close_ms: How long it takes to free the model.
    """

    reply: str | None = None
    repeat: int = 1
    step_ms: float = 0.0
    load_ms: float = 0.0
    load_steps: int = 10
    weights_bytes: int = 1 << 20
    keeps_bytes: int = 0
    crash: str | None = None
    hang: str | None = None
    trouble_after_steps: int = 3
    refuse: str | None = None
    close_ms: float = 0.0


class _FakeFile(msgspec.Struct, frozen=True):
    fake: FakeConfig = FakeConfig()


def write_fake_model(folder: Path, config: FakeConfig | None = None) -> Path:
    """Make ``folder`` a fake model's; gives it back."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "fake", "fake": config or FakeConfig()}
    (folder / "config.json").write_bytes(msgspec.json.encode(content))
    return folder


def _pause(milliseconds: float) -> None:
    if milliseconds > 0:
        time.sleep(milliseconds / 1000)


class FakeEngine:
    """Implements ``Engine``; a token is a character."""

    def __init__(self) -> None:
        self._config = FakeConfig()
        self._rows: Rows | None = None
        self._context_tokens = 0
        self._name = ""
        self._kept_bytes = 0

    def load(self, begin: Begin, progress: Progress) -> Loaded:
        raw = (Path(begin.path) / "config.json").read_bytes()
        config = self._config = msgspec.json.decode(raw, type=_FakeFile).fake
        self._name = begin.name
        for step in range(config.load_steps):
            progress(config.weights_bytes * step // config.load_steps, config.weights_bytes)
            if step == config.load_steps // 2:
                _misbehave(config, "load")
            _pause(config.load_ms / config.load_steps)
        if config.refuse == "out_of_memory":
            raise LoadRefused("out_of_memory", "[malloc] Unable to allocate 1 bytes.")
        if config.refuse == "incompatible":
            raise LoadRefused("incompatible", f"{begin.path}/config.json asks to be refused")
        progress(config.weights_bytes, config.weights_bytes)
        self._context_tokens = min(begin.context_tokens, begin.kv_tokens)
        self._rows = Rows(
            self._prepare,
            lambda: _FakeDecoder(config),
            Allowance(begin.kv_tokens, max(1, begin.rows_max)),
        )
        return Loaded(self._context_tokens)

    def ahead(self, request: WorkRequest) -> Callable[[], WorkRequest] | None:
        return None

    def submit(self, request_id: int, request: WorkRequest) -> int:
        if not isinstance(request, Generate):
            raise not_served(request, "generates text")
        self._kept_bytes += self._config.keeps_bytes
        return self._open.submit(request_id, request)

    def count(self, request: CountTokens) -> int:
        return len(self._text(Generate(lease=request.lease, messages=request.messages)))

    def step(self) -> list[Emission]:
        return self._open.step()

    def cancel(self, request_id: int) -> Usage | None:
        return self._open.cancel(request_id)

    @property
    def busy(self) -> bool:
        return self._rows is not None and self._rows.busy

    def memory_bytes(self) -> int:
        return self._config.weights_bytes + self._kept_bytes

    def trim(self) -> None:
        self._open.trim()
        self._kept_bytes = 0

    def put_away(self) -> bool:
        return False

    def close(self) -> None:
        _pause(self._config.close_ms)
        self._rows = None

    @property
    def _open(self) -> Rows:
        assert self._rows is not None
        return self._rows

    def _prepare(self, request: Generate) -> Row:
        check_request(request, tools=False)
        if request.logprobs is not None:
            raise invalid("the fake has no probabilities", "logprobs")
        if request.constraint is not None:
            raise invalid("the fake follows no grammar", "constraint")
        text = self._text(request)
        if POISON_PREPARE in text:
            raise RuntimeError(POISON_PREPARE)
        prompt = [ord(character) for character in text]
        return Row(
            prompt=prompt,
            tokens_max=answer_tokens(request, len(prompt), self._context_tokens),
            output=TextOutput(_Characters(self._config.repeat), Splitter(Markers(), request.stop)),
            extra=_Reply(self._config.reply, text, request),
        )

    def _text(self, request: Generate) -> str:
        if isinstance(request.prompt, str):
            return request.prompt
        if request.prompt is not None:
            return "".join(map(chr, request.prompt))
        refuse_images(request.messages or (), self._name)
        parts = [part for message in request.messages or () for part in message.parts]
        text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
        if not text:
            raise MlxdError(Code.INVALID_REQUEST, "the fake reads text", field="messages")
        return text


class _Reply:
    """A row's endless answer; sampled rows shuffle the case of its letters by their seed."""

    def __init__(self, reply: str | None, prompt: str, request: Generate) -> None:
        self.prompt = prompt
        self._reply = reply
        sampled = request.sampling.temperature or 0.0
        seed = request.sampling.seed
        self._cases = random.Random(seed) if sampled > 0 else None
        self._upper: list[bool] = []

    def character(self, position: int) -> str | None:
        """The answer's character at ``position``; None where the answer ends by itself."""
        if self._reply is not None:
            character = self._reply[position % len(self._reply)]
        elif position < len(self.prompt):
            character = self.prompt[position]
        else:
            return None
        while self._cases is not None and len(self._upper) <= position:
            self._upper.append(self._cases.random() < 0.5)
        return character.upper() if self._upper and self._upper[position] else character


class _FakeDecoder:
    """A batch that decodes one character a row and step."""

    def __init__(self, config: FakeConfig) -> None:
        self._config = config
        self._rows: dict[int, tuple[Row, int]] = {}
        self._uids = 0
        self._steps = 0

    def defers(self, row: Row) -> bool:
        return False

    def insert(self, row: Row) -> int:
        self._uids += 1
        self._rows[self._uids] = (row, len(row.decoded))
        return self._uids

    def remove(self, uid: int) -> None:
        del self._rows[uid]

    def next(self) -> list[Token | RowFailed]:
        _pause(self._config.step_ms)
        self._steps += 1
        if self._steps > self._config.trouble_after_steps:
            _misbehave(self._config, "step")
        results: list[Token | RowFailed] = []
        for uid, (row, position) in list(self._rows.items()):
            reply: _Reply = row.extra
            if POISON_STEP in reply.prompt:
                raise RuntimeError(POISON_STEP)
            if POISON_ROW in reply.prompt:
                del self._rows[uid]
                results.append(RowFailed(uid, RuntimeError(POISON_ROW)))
                continue
            results.append(self._token(uid, row, position))
        return results

    def _token(self, uid: int, row: Row, position: int) -> Token:
        reply: _Reply = row.extra
        character = reply.character(position)
        self._rows[uid] = (row, position + 1)
        if character is None:
            del self._rows[uid]
            return Token(uid, 0, "stop")
        if position + 1 >= row.tokens_max:
            del self._rows[uid]
            return Token(uid, ord(character), "length")
        return Token(uid, ord(character))

    def put_away(self) -> bool:
        return False

    def keep_within(self, bytes_max: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        self._rows.clear()


class _Characters:
    """The detokenizer of a model whose tokens are characters."""

    def __init__(self, repeat: int) -> None:
        self._repeat = repeat
        self._new = ""

    @property
    def last_segment(self) -> str:
        new, self._new = self._new, ""
        return new

    def add_token(self, token: int) -> None:
        self._new += chr(token) * self._repeat

    def finalize(self) -> None:
        """Characters are always complete."""


def _misbehave(config: FakeConfig, where: str) -> None:
    if config.crash == where:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.hang == where:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()
