"""What chat and plain completions share of their replies: chunks, their end, counts. Pure."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from daemon.wire import data as d
from daemon.wire.errors import Fault
from http_bridge.plan import Answer, total_usage
from http_bridge.sse import comment, failure_event

DONE_EVENT: Final = b"data: [DONE]\n\n"

_json: Final = msgspec.json.Encoder()


class ChunkedReply:
    """One answer as chunks or as one object.

    Args:
        choices: How many there will be.
        logprobs: Whether they were asked for.

    Attributes:
        whole_kind: The ``object`` of a whole answer.
        chunk_kind: The ``object`` of a chunk.
        member: What a choice of a chunk calls its content.
        nothing: That member's value where there is nothing to say.
    """

    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    member: ClassVar[bytes]
    nothing: ClassVar[bytes]

    def __init__(
        self,
        *,
        request_id: str,
        created_s: int,
        include_usage: bool,
        choices: int = 1,
        logprobs: bool = False,
    ) -> None:
        self._id = request_id
        self._created_s = created_s
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._choices = choices
        self._ending = Ending(choices, include_usage=include_usage)
        self._frame: ChunkFrame

    def waiting(self, note: str) -> bytes:
        return comment(note)

    def begin(self, model: str, prompt_tokens: int = 0) -> bytes:  # noqa: ARG002 - usage has it
        head = self._head(self.chunk_kind, model)
        self._frame = ChunkFrame(head, include_usage=self._include_usage)
        return b""

    def end(self, done: d.Done, choice: int = 0) -> bytes:
        reason = b'"' + self.finish_reason(done).encode() + b'"'
        finish = self.chunk(self.nothing, choice, finish_reason=reason)
        return finish + self._ending.after(done, choice, self._frame)

    def failure(self, fault: Fault) -> bytes:
        return failure_event(fault)

    def whole(self, model: str, answers: Sequence[Answer]) -> bytes:
        usage = total_usage([answer.done.usage for answer in answers])
        choices = [
            {
                "index": index,
                **self.choice(answer),
                "finish_reason": self.finish_reason(answer.done),
            }
            for index, answer in enumerate(answers)
        ]
        head = self._head(self.whole_kind, model)
        return _json.encode({**head, "choices": choices, "usage": usage_of(usage)})

    def choice(self, answer: Answer) -> dict[str, Any]:
        """A whole answer's members, but for its index and why it ended."""
        raise NotImplementedError

    def finish_reason(self, done: d.Done) -> str:
        return done.finish_reason

    def chunk(
        self,
        content: bytes,
        choice: int,
        *,
        logprobs: bytes = b"null",
        finish_reason: bytes = b"null",
    ) -> bytes:
        """One event about one choice; everything is JSON already."""
        fields = self.member + content + b',"logprobs":' + logprobs
        return self._frame.chunk(fields + b',"finish_reason":' + finish_reason, choice)

    def _head(self, kind: str, model: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created_s, "model": model}


class ChunkFrame:
    """The unchanging bytes around the changing part of a stream's chunks.

    They are encoded once a stream, so that a token costs one small string.
    """

    def __init__(self, head: dict[str, Any], *, include_usage: bool) -> None:
        opened = msgspec.json.encode(head)[:-1]
        usage = b',"usage":null' if include_usage else b""
        self._before = b"data: " + opened + b',"choices":[{"index":'
        self._after = b"}]" + usage + b"}\n\n"
        self._bare = b"data: " + opened + b',"choices":[],"usage":'

    def chunk(self, fields: bytes, choice: int = 0) -> bytes:
        """One event; ``fields`` are the choice's members, as JSON without braces."""
        return self._before + b"%d," % choice + fields + self._after

    def usage_chunk(self, usage: d.Usage) -> bytes:
        """The event without choices that carries the counts."""
        return self._bare + msgspec.json.encode(usage_of(usage)) + b"}\n\n"


class Ending:
    """Counts the choices that have ended, for what is said after the last one."""

    def __init__(self, choices: int, *, include_usage: bool) -> None:
        self._missing = choices
        self._include_usage = include_usage
        self._usages: dict[int, d.Usage] = {}

    def after(self, done: d.Done, choice: int, frame: ChunkFrame) -> bytes:
        """The usage chunk and ``[DONE]`` if this was the last choice, else nothing."""
        self._usages[choice] = done.usage
        if len(self._usages) < self._missing:
            return b""
        usages = [self._usages[index] for index in sorted(self._usages)]
        usage = frame.usage_chunk(total_usage(usages)) if self._include_usage else b""
        return usage + DONE_EVENT


def usage_of(usage: d.Usage) -> dict[str, Any]:
    """OpenAI's usage object, from the engine's counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def token_text(token: bytes) -> str:
    """A token's text; bytes that are no character yet show as U+FFFD."""
    return token.decode(errors="replace")


def logprobs_of(tokens: Sequence[d.TokenLogprob]) -> list[dict[str, Any]]:
    """OpenAI's list of log probabilities."""
    return [
        {
            **_chance(token.token, token.logprob),
            "top_logprobs": [_chance(other.token, other.logprob) for other in token.top],
        }
        for token in tokens
    ]


def _chance(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token_text(token), "bytes": list(token), "logprob": logprob}
