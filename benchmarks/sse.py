"""Bytes of an HTTP answer to server-sent events, without I/O.

Reads what the servers compared here send: a head, then a body that is chunked (RFC 9112,
section 7.1), of a stated length, or ends with its connection.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

Arrival = tuple[float, bytes]
"""When bytes came, by the caller's clock in seconds, and the bytes."""


class BadAnswer(Exception):
    """The answer is not what was asked for; the message quotes it."""


class Answer:
    """An answer, read piece by piece.

    Attributes:
        status: 0 until the head is complete.
        ended: Whether the body said that it is complete.
    """

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self._raw = bytearray()
        self._chunked = False
        self._left: int | None = None  # of the chunk or body; None: up to the end
        self._in_chunk = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; gives those of the body that they complete."""
        self._raw += data
        if not self.status and not self._take_head():
            return b""
        if not self._chunked:
            return self._take_plain()
        body = bytearray()
        while not self.ended and (part := self._take_chunk()) is not None:
            body += part
        return bytes(body)

    def _take_head(self) -> bool:
        head, separator, rest = bytes(self._raw).partition(b"\r\n\r\n")
        if not separator:
            return False
        first, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (f.partition(":") for f in fields)
        }
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        if not self._chunked and "content-length" in headers:
            self._left = int(headers["content-length"])
        self._raw = bytearray(rest)
        return True

    def _take_plain(self) -> bytes:
        body = bytes(self._raw)
        self._raw.clear()
        if self._left is not None:
            self._left -= len(body)
            self.ended = self._left <= 0
        return body

    def _take_chunk(self) -> bytes | None:
        """The data of one chunk; None until more bytes come."""
        if not self._in_chunk:
            line_end = self._raw.find(b"\r\n")
            if line_end < 0:
                return None
            size = int(bytes(self._raw[:line_end]).split(b";")[0], 16)
            if size == 0:
                self.ended = True
                return b""
            del self._raw[: line_end + 2]
            self._left, self._in_chunk = size, True
        assert self._left is not None
        if len(self._raw) < self._left + 2:
            return None
        part = bytes(self._raw[: self._left])
        del self._raw[: self._left + 2]
        self._in_chunk = False
        return part


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None

    @property
    def has_text(self) -> bool:
        delta = self.delta or _Delta()
        return bool(delta.content or delta.reasoning or delta.reasoning_content or self.text)


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """As OpenAI names things, or (mlx_vlm) as others do."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class Transcript(msgspec.Struct, frozen=True):
    """A streamed chat completion, from its first to its last byte.

    Attributes:
        texts_s: When each event that carries text came.
        text: All of it.
        end_s: When the last byte came.
        completion_tokens: As the server counted them.
    """

    texts_s: tuple[float, ...]
    text: str
    end_s: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


_chunk = msgspec.json.Decoder(_Chunk)


def transcript(arrivals: Sequence[Arrival]) -> Transcript:
    """What a streamed answer said, and when.

    Raises:
        BadAnswer: Not a complete, successful stream with a usage count.
    """
    texts_s: list[float] = []
    words: list[str] = []
    usage: _Usage | None = None
    for at_s, event in events(arrivals):
        if event == b"[DONE]":
            continue
        chunk = _chunk.decode(event)
        if chunk.error is not None:
            raise BadAnswer(event.decode())
        usage = chunk.usage or usage
        if any(choice.has_text for choice in chunk.choices):
            texts_s.append(at_s)
            words += [_text(choice) for choice in chunk.choices]
    if usage is None or not texts_s:
        raise BadAnswer(
            f"no text or no usage in {b''.join(data for _, data in arrivals)[-2000:]!r}"
        )
    cached = usage.prompt_tokens_details or _Cached()
    return Transcript(
        texts_s=tuple(texts_s),
        text="".join(words),
        end_s=arrivals[-1][0],
        prompt_tokens=usage.prompt_tokens or usage.input_tokens or 0,
        completion_tokens=usage.completion_tokens or usage.output_tokens or 0,
        cached_tokens=cached.cached_tokens or 0,
    )


def events(arrivals: Sequence[Arrival]) -> Iterator[Arrival]:
    """The data of each event, with the moment that completed it; comments are left out.

    Raises:
        BadAnswer: The status is not 200.
    """
    answer = Answer()
    body = b""
    for at_s, data in arrivals:
        body += answer.feed(data)
        *complete, body = body.replace(b"\r\n", b"\n").split(b"\n\n")
        if answer.status not in {0, 200}:
            raise BadAnswer(b"".join(data for _, data in arrivals)[:2000].decode(errors="replace"))
        for event in complete:
            lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield at_s, b"\n".join(line[5:].strip() for line in lines)


def _text(choice: _Choice) -> str:
    return ((choice.delta.content if choice.delta else None) or choice.text) or ""
