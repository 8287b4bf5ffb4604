"""Time as an input: milliseconds since the epoch that never run backwards."""

import time
from collections.abc import Callable


class Clock:
    """``now_ms`` is the wall clock at the start, or the log's last time if that is later;
    from then on it follows a monotonic clock.

    Args:
        not_before_ms: The last time the event log knows.
        wall_s: Seconds since the epoch.
        monotonic_s: A clock that never goes back; it may stand still while the machine sleeps.
    """

    def __init__(
        self,
        not_before_ms: int = 0,
        *,
        wall_s: Callable[[], float] = time.time,  # noqa: TID251 - the one place that reads it
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._offset_ms = max(int(wall_s() * 1000), not_before_ms) - int(monotonic_s() * 1000)

    def now_ms(self) -> int:
        return self._offset_ms + int(self._monotonic_s() * 1000)

    def behind_ms(self) -> int:
        """How far the wall clock is ahead; negative if it was set back, which is ignored."""
        return int(self._wall_s() * 1000) - self.now_ms()

    def advance(self, by_ms: int) -> None:
        """Jump ahead: the machine slept, and the monotonic clock with it."""
        assert by_ms >= 0
        self._offset_ms += by_ms
