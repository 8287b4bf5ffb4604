"""The status, asked for again and again: what has not changed is not made anew."""

from collections.abc import Callable
from typing import Final

import anyio.to_thread
from msgspec.structs import replace

from daemon import processes
from daemon.kernel import Kernel
from daemon.pool.state import Pool
from daemon.server.views import Facts, status_view
from daemon.wire.control import StatusView

RSS_AGE_MS_MAX: Final = 1000
"""Reading it takes a thread, and on macOS a process."""


class StatusBoard:
    """Shows one kernel's pool.

    Args:
        warning: What has to be said that the pool does not know; None if nothing.
    """

    def __init__(
        self, kernel: Kernel, facts: Facts, warning: Callable[[], str | None] = lambda: None
    ) -> None:
        self._kernel = kernel
        self._facts = facts
        self._warning = warning
        self._shown: tuple[Pool, str | None, StatusView] | None = None
        self._rss_bytes = 0
        self._rss_until_ms: int | None = None

    @property
    def ready(self) -> bool:
        """Whether :meth:`view` has nothing to read first."""
        return self._rss_until_ms is not None and self._kernel.now_ms() < self._rss_until_ms

    async def make_ready(self) -> None:
        """Read what is not in memory."""
        if not self.ready:
            self._rss_bytes = await anyio.to_thread.run_sync(processes.rss_bytes, self._facts.pid)
            self._rss_until_ms = self._kernel.now_ms() + RSS_AGE_MS_MAX

    def view(self, request_id: int) -> StatusView:
        """The pool now; its process's memory as it was when last read."""
        kernel, warning = self._kernel, self._warning()
        view = self._view(kernel.pool, kernel.read_only)
        return replace(
            view,
            id=request_id,
            warnings=view.warnings if warning is None else (*view.warnings, warning),
            now_ms=kernel.now_ms(),
            seq=kernel.seq,
            rss_bytes=self._rss_bytes,
        )

    def _view(self, pool: Pool, read_only: str | None) -> StatusView:
        """What follows from the pool alone, which is another object after every change."""
        if self._shown is None or self._shown[0] is not pool or self._shown[1] != read_only:
            view = status_view(
                0, pool, self._facts, now_ms=0, seq=0, rss_bytes=0, read_only=read_only
            )
            self._shown = (pool, read_only, view)
        return self._shown[2]
