"""From tokens to what a client reads: text, reasoning and whole tool calls."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from daemon.wire.data import TokenLogprob, ToolCall
from daemon.worker.engines.logprobs import LogprobTrail, Scores
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
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.text or self.reasoning or self.tool_calls or self.logprobs)

    def __add__(self, other: "Piece") -> "Piece":
        return Piece(
            self.text + other.text,
            self.reasoning + other.reasoning,
            self.tool_calls + other.tool_calls,
            self.logprobs + other.logprobs,
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
    """One request's way from tokens to pieces.

    Args:
        tools: Reads tool calls, where the request may have some.
        trail: Follows log probabilities, where the request asked for them.
        calls_max: The answer ends after so many tool calls.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        splitter: Splitter,
        tools: ToolReader | None = None,
        trail: LogprobTrail | None = None,
        calls_max: int | None = None,
    ) -> None:
        self._detokenizer = detokenizer
        self._splitter = splitter
        self._tools = tools
        self._trail = trail
        self._calls_max = calls_max
        self._markup = ""
        self._calls = 0

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended the answer, once one was met."""
        return self._splitter.stop_text

    @property
    def called(self) -> bool:
        """Whether the answer has a tool call."""
        return self._calls > 0

    @property
    def ended(self) -> bool:
        """Whether a stop text was met, or the last call that was wanted was made."""
        return self._splitter.stop_text is not None or self._calls_done

    @property
    def _calls_done(self) -> bool:
        return self._calls_max is not None and self._calls >= self._calls_max

    def feed(self, token: int, scores: Scores | None = None) -> Piece:
        """Take the next token of the answer in."""
        self._detokenizer.add_token(token)
        text = self._detokenizer.last_segment
        if self._trail is not None and scores is not None:
            self._trail.add(token, scores, text)
        return self._pieces(self._splitter.feed(text), whole=True)

    def finish(self) -> Piece:
        """No token follows: everything held back is given out."""
        if self._calls_done:
            return Piece()
        self._detokenizer.finalize()
        text = self._detokenizer.last_segment
        if self._trail is not None:
            self._trail.close(text)
        fed = self._pieces(self._splitter.feed(text), whole=True)
        return fed + self._pieces(self._splitter.finish(), whole=False)

    def _pieces(self, segments: list[Segment], *, whole: bool) -> Piece:
        text, reasoning, calls = "", "", list[ToolCall]()
        for segment in segments:
            if self._calls_max is not None and len(calls) + self._calls >= self._calls_max:
                break
            if segment.state == "answer":
                text += segment.text
            elif segment.state == "reasoning":
                reasoning += segment.text
            elif self._tools is not None:
                self._markup += segment.text
                if segment.closed:
                    found = self._wanted(self._tools.read(self._markup), len(calls))
                    calls += found
                    text += "" if found else self._tools.markup(self._markup, whole=whole)
                    self._markup = ""
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._trail is not None:
            logprobs = self._trail.take(segments, self._splitter.decided)
        self._calls += len(calls)
        return Piece(text, reasoning, tuple(calls), logprobs)

    def _wanted(self, found: tuple[ToolCall, ...], before: int) -> tuple[ToolCall, ...]:
        """As many of the calls as the answer may still have."""
        if self._calls_max is None:
            return found
        return found[: self._calls_max - self._calls - before]
