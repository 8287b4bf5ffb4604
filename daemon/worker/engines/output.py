"""From tokens to what a client reads: text, reasoning and whole tool calls."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from daemon.wire.data import ToolCall
from daemon.worker.engines.splitting import Segment, Splitter


class Detokenizer(Protocol):
    """mlx_lm's and mlx_vlm's streaming detokenizers: complete characters only."""

    @property
    def last_segment(self) -> str: ...

    def add_token(self, token: int) -> None: ...

    def finalize(self) -> None: ...


class Piece(msgspec.Struct, frozen=True):
    """What one step adds to an answer; often nothing."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.text or self.reasoning or self.tool_calls)

    def __add__(self, other: "Piece") -> "Piece":
        return Piece(
            self.text + other.text,
            self.reasoning + other.reasoning,
            self.tool_calls + other.tool_calls,
        )


class ToolReader:
    """Parses the markup of calls with the model's own parser.

    Attributes:
        calls: How many calls were read so far.
    """

    def __init__(
        self,
        parse: Callable[[str, Any], Any],
        markers: tuple[str, str],
        tools: Sequence[dict[str, Any]],
        call_id: str,
    ) -> None:
        self._parse = parse
        self._markers = markers
        self._tools = list(tools)
        self._call_id = call_id
        self.calls = 0

    def read(self, text: str) -> tuple[ToolCall, ...]:
        """The calls in one stretch of markup; empty if it is not a call after all."""
        try:
            parsed = self._parse(text, self._tools)
            found = parsed if isinstance(parsed, list) else [parsed]
            return tuple(self._call(call) for call in found)
        except Exception:  # noqa: BLE001  (third-party parsers of text that a model wrote)
            return ()

    def markup(self, text: str, *, whole: bool) -> str:
        """The text as the model wrote it, for markup that could not be read as a call."""
        opening, closing = self._markers
        return opening + text + (closing if whole else "")

    def _call(self, call: dict[str, Any]) -> ToolCall:
        name, arguments = call["name"], call.get("arguments", {})
        if not isinstance(name, str):
            raise TypeError("a call's name is not text")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        self.calls += 1
        return ToolCall(id=f"{self._call_id}_{self.calls}", name=name, arguments=arguments)


class TextOutput:
    """One request's way from tokens to pieces."""

    def __init__(
        self, detokenizer: Detokenizer, splitter: Splitter, tools: ToolReader | None = None
    ) -> None:
        self._detokenizer = detokenizer
        self._splitter = splitter
        self._tools = tools
        self._markup = ""

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended the answer, once one was met."""
        return self._splitter.stop_text

    @property
    def called(self) -> bool:
        """Whether the answer has a tool call."""
        return self._tools is not None and self._tools.calls > 0

    def feed(self, token: int) -> Piece:
        """Take the next token of the answer in."""
        self._detokenizer.add_token(token)
        return self._pieces(self._splitter.feed(self._detokenizer.last_segment), whole=True)

    def finish(self) -> Piece:
        """No token follows: everything held back is given out."""
        self._detokenizer.finalize()
        fed = self._pieces(self._splitter.feed(self._detokenizer.last_segment), whole=True)
        return fed + self._pieces(self._splitter.finish(), whole=False)

    def _pieces(self, segments: list[Segment], *, whole: bool) -> Piece:
        text, reasoning, calls = "", "", list[ToolCall]()
        for segment in segments:
            if segment.state == "answer":
                text += segment.text
            elif segment.state == "reasoning":
                reasoning += segment.text
            elif self._tools is not None:
                self._markup += segment.text
                if segment.closed:
                    found = self._tools.read(self._markup)
                    calls += found
                    text += "" if found else self._tools.markup(self._markup, whole=whole)
                    self._markup = ""
        return Piece(text, reasoning, tuple(calls))
