"""How much a worker has written, and for how long it was at it."""

from typing import Final

from daemon.wire.data import Delta, Usage, Written
from daemon.worker.engines.base import Emission

REPORT_EVERY_S: Final = 1.0


class Meter:
    """Counts from the load on; what it says goes out at most once a second."""

    def __init__(self) -> None:
        self._ended_tokens = 0
        self._live_tokens: dict[int, int] = {}
        self._writing_s = 0.0
        self._reported = Written(tokens=0, writing_ms=0)
        self._reported_s = 0.0

    def count(self, emissions: list[Emission], took_s: float) -> None:
        """A step of the engine gave ``emissions``."""
        before = self._tokens
        for emission in emissions:
            for frame in emission.frames:
                if isinstance(frame, Delta):
                    self._live_tokens[emission.request_id] = frame.tokens
            if emission.usage is not None:
                self.ended(emission.request_id, emission.usage)
        if self._tokens != before:
            self._writing_s += took_s

    def ended(self, request_id: int, usage: Usage | None) -> None:
        """A request is over; what it had written counts, if nobody counted it better."""
        shown = self._live_tokens.pop(request_id, 0)
        self._ended_tokens += shown if usage is None else max(usage.completion_tokens, shown)

    def report(self, now_s: float, *, idle: bool) -> Written | None:
        """What there is to say now; ``idle`` says the last of it at once."""
        if not idle and now_s - self._reported_s < REPORT_EVERY_S:
            return None
        written = Written(tokens=self._tokens, writing_ms=round(self._writing_s * 1000))
        if written == self._reported:
            return None
        self._reported, self._reported_s = written, now_s
        return written

    @property
    def _tokens(self) -> int:
        return self._ended_tokens + sum(self._live_tokens.values())
