"""Time as an input: milliseconds since the epoch that never run backwards."""

import time
from collections.abc import Callable


class Clock:
    """``now_ms`` is the wall clock at the start, or the log's last time if that is later;
    from then on it follows a monotonic clock.

    Args:
        not_before_ms: The last time the event log knows.
        wall_s: Seconds since the epoch, read once.
        monotonic_s: A clock that never goes back.
    """

    def __init__(
        self,
        not_before_ms: int = 0,
        *,
        wall_s: Callable[[], float] = time.time,  # noqa: TID251 - the one place that reads it
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._offset_ms = max(int(wall_s() * 1000), not_before_ms) - int(monotonic_s() * 1000)

    def now_ms(self) -> int:
        return self._offset_ms + int(self._monotonic_s() * 1000)
