"""From tokens to what a client reads: text, reasoning and whole tool calls."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from daemon.wire.data import TokenLogprob, ToolCall
from daemon.worker.engines.logprobs import LogprobTrail, Scores
from daemon.worker.engines.splitting import Segment, Splitter

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
"""What OpenAI lets a function be called."""


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
        self._offered = frozenset(_name_of(tool) for tool in tools)
        self.calls = 0

    def read(self, text: str, *, cut: bool = False) -> tuple[ToolCall, ...]:
        """The calls in one stretch of markup; empty if it is not a call after all.

        Args:
            cut: Whether the answer was ended within it. Where there is a closing marker that
                is no call: lenient parsers would make one of half of its arguments.
        """
        if cut and self._markers[1]:
            return ()
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
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TypeError("a call's name is no name")
        if name not in self._offered and set(arguments) == {"raw"}:
            raise ValueError("words: mlx_lm's glm47 parser takes the first for a name")
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
        # Blanks at the beginning or after a call: text only if text follows them.
        self._blank: list[Segment] = []
        self._at_edge = tools is not None

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
        return self._pieces(self._splitter.feed(text), last=False)

    def finish(self, *, cut: bool = False) -> Piece:
        """No token follows: everything held back is given out.

        Args:
            cut: Whether the answer was ended before the model had done so itself.
        """
        if self._calls_done:
            return Piece()
        self._detokenizer.finalize()
        text = self._detokenizer.last_segment
        if self._trail is not None:
            self._trail.close(text)
        fed = self._pieces(self._splitter.feed(text), last=False)
        cut = cut or self.stop_text is not None
        return fed + self._pieces(self._splitter.finish(), last=True, cut=cut)

    def _pieces(self, segments: list[Segment], *, last: bool, cut: bool = False) -> Piece:
        text, reasoning, calls = "", "", list[ToolCall]()
        shown: list[Segment] = []
        for segment in segments:
            if self._calls_max is not None and len(calls) + self._calls >= self._calls_max:
                break
            if segment.state == "answer":
                shown += (settled := self._settled(segment))
                text += _joined(settled)
            elif segment.state == "reasoning":
                reasoning += segment.text
            elif self._tools is not None:
                self._markup += segment.text
                if segment.closed:
                    read = self._tools.read(self._markup, cut=cut)
                    calls += (found := self._wanted(read, len(calls)))
                    shown += (settled := self._around_call(made=bool(found)))
                    text += _joined(settled)
                    text += "" if found else self._tools.markup(self._markup, whole=not last)
                    self._markup = ""
        self._calls += len(calls)
        if last and not self.called:
            shown += (settled := self._release())
            text += _joined(settled)
        return Piece(text, reasoning, tuple(calls), self._logprobs_of(shown))

    def _settled(self, segment: Segment) -> list[Segment]:
        """What is text now: blanks are held as long as they may only part calls."""
        if self._at_edge and not segment.text.strip():
            self._blank.append(segment)
            return []
        return [*self._release(), segment]

    def _around_call(self, *, made: bool) -> list[Segment]:
        """The blanks before what looked like a call: no text if it was one."""
        if not made:
            return self._release()
        self._blank, self._at_edge = [], True
        return []

    def _release(self) -> list[Segment]:
        held, self._blank, self._at_edge = self._blank, [], False
        return held

    def _logprobs_of(self, shown: list[Segment]) -> tuple[TokenLogprob, ...]:
        if self._trail is None:
            return ()
        decided = self._blank[0].start if self._blank else self._splitter.decided
        return self._trail.take(shown, decided)

    def _wanted(self, found: tuple[ToolCall, ...], before: int) -> tuple[ToolCall, ...]:
        """As many of the calls as the answer may still have."""
        if self._calls_max is None:
            return found
        return found[: self._calls_max - self._calls - before]


def _name_of(tool: Mapping[str, Any]) -> Any:
    return tool.get("function", tool).get("name")


def _joined(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments)
