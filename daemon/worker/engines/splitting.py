"""Text as it is decoded, split into answer, reasoning and tool calls, and cut at stop texts.

Matching is on text, not on tokens: a marker or a stop text is found however the model
happened to tokenise it. A match is the pattern that ends first; of those that end at the
same character, the longest. That rule looks at one character at a time, so the result
does not depend on how the text was cut into chunks. Nothing that could still become a
match is given out, and everything that did not is, at the latest by :meth:`finish`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

State = Literal["answer", "reasoning", "tool"]


class Markers(msgspec.Struct, frozen=True, kw_only=True):
    """A model's own markup; a pair is absent where the model has none.

    Attributes:
        think: Opening and closing marker of reasoning.
        tool: Opening and closing marker of a tool call; an empty closing marker means
            that the call lasts until the end of the answer.
        dropped: Markers that frame the answer and are no part of it.
    """

    think: tuple[str, str] | None = None
    tool: tuple[str, str] | None = None
    dropped: tuple[str, ...] = ()


class Segment(msgspec.Struct, frozen=True):
    """A stretch of text in one state; ``closed`` if the state ended with it.

    Attributes:
        start: Where it begins, in characters of everything that was fed.
    """

    state: State
    text: str
    closed: bool = False
    start: int = 0


class _Edge(msgspec.Struct, frozen=True):
    pattern: str
    target: State


class Splitter:
    """Splits one answer.

    Args:
        whole: Whether the answer is one text from its first letter on, which may hold markers.

    Attributes:
        stop_text: Which stop text ended it, if one did.
        decided: Characters of what was fed that were given out or dropped for good.
    """

    def __init__(
        self,
        markers: Markers,
        stops: Sequence[str],
        state: State = "answer",
        *,
        whole: bool = False,
    ) -> None:
        self._edges = _edges(markers)
        self._whole = whole
        self._stops: Final = tuple(stop for stop in stops if stop)
        self._pending = ""
        self._scanned = 0
        self.decided = 0
        self.state: State = state
        self.stop_text: str | None = None

    def feed(self, text: str) -> list[Segment]:
        """Take decoded text in; give back what is certain. Nothing follows a stop text."""
        if self.stop_text is not None:
            return []
        if not (self._pending or self._stops or self._edges[self.state]):
            return [self._segment(text)] if text else []
        self._pending += text
        segments: list[Segment] = []
        while self._scanned < len(self._pending):
            self._scanned += 1
            self._match(segments)
            if self.stop_text is not None:
                return segments
        held = self._held()
        certain = self._pending[: len(self._pending) - held]
        if certain:
            self._begin_whole(certain)
            segments.append(self._segment(certain))
            self._pending = self._pending[len(certain) :]
            self._scanned = len(self._pending)
        return segments

    def finish(self) -> list[Segment]:
        """The text ends here: what was held back is no marker, and is given out."""
        rest, self._pending, self._scanned = self._pending, "", 0
        open_call = self.state == "tool"
        return [self._segment(rest, closed=open_call)] if rest or open_call else []

    def _segment(self, text: str, *, closed: bool = False) -> Segment:
        start, self.decided = self.decided, self.decided + len(text)
        return Segment(self.state, text, closed, start)

    def _match(self, segments: list[Segment]) -> None:
        """Act on a pattern that ends at the character scanned last, if one does."""
        seen = self._pending[: self._scanned]
        stop = max((s for s in self._stops if seen.endswith(s)), key=len, default=None)
        edge = max(
            (e for e in self._edges[self.state] if seen.endswith(e.pattern)),
            key=lambda e: len(e.pattern),
            default=None,
        )
        if stop is not None:
            self.stop_text = stop
            segments.append(self._segment(seen[: -len(stop)]))
            self.decided += len(self._pending) - len(seen) + len(stop)
            self._pending, self._scanned = "", 0
        elif edge is not None and not self._begin_whole(seen[: -len(edge.pattern)]):
            rest = self._pending[self._scanned :]
            self._close(segments, seen[: -len(edge.pattern)], edge.target, rest)
            self.decided += len(edge.pattern)

    def _begin_whole(self, text: str) -> bool:
        """Whether the answer's one text begins in ``text``; then no marker follows."""
        begins = self._whole and self.state == "answer" and not text.isspace() and text != ""
        if begins:
            self._edges = {**self._edges, "answer": ()}
        return begins

    def _close(self, segments: list[Segment], text: str, target: State, rest: str) -> None:
        closed = target != self.state
        if text or closed:
            segments.append(self._segment(text, closed=closed))
        self.state = target
        self._pending, self._scanned = rest, 0

    def _held(self) -> int:
        """How many characters at the end could still become a match."""
        patterns = [*self._stops, *(e.pattern for e in self._edges[self.state])]
        longest = min(max(map(len, patterns), default=1) - 1, len(self._pending))
        for size in range(longest, 0, -1):
            tail = self._pending[-size:]
            if any(pattern.startswith(tail) for pattern in patterns):
                return size
        return 0


def _edges(markers: Markers) -> Mapping[State, tuple[_Edge, ...]]:
    """The markers to look for in each state, and where each leads.

    A second opening marker inside reasoning, or a closing one without an opening one, is
    dropped: models repeat them, and neither is text that anybody wants to read.
    """
    answer = [_Edge(marker, "answer") for marker in markers.dropped]
    reasoning: list[_Edge] = []
    tool: list[_Edge] = []
    if markers.think is not None:
        opening, closing = markers.think
        answer += [_Edge(opening, "reasoning"), _Edge(closing, "answer")]
        reasoning += [_Edge(closing, "answer"), _Edge(opening, "reasoning")]
    if markers.tool is not None:
        opening, closing = markers.tool
        answer.append(_Edge(opening, "tool"))
        if markers.think is not None:
            reasoning.append(_Edge(opening, "tool"))
        if closing:
            tool.append(_Edge(closing, "answer"))
    return {"answer": tuple(answer), "reasoning": tuple(reasoning), "tool": tuple(tool)}
