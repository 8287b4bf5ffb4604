"""Work that a request needs before the model does, in a thread beside the main one.

Decoding a large picture, checking a long sound, or reading a long text takes as long as many
steps of the rows that run. One request's work is done at a time, in order of arrival, and the
next begins when the main thread has taken what the last one gave: so what is ready and waits is
never more than one request's.
"""

import queue
import threading
from collections.abc import Callable
from typing import Final

import structlog

from daemon.wire.data import WorkRequest
from daemon.wire.errors import Code, Fault, MlxdError
from daemon.worker.inbox import Inbox, Prepared

log = structlog.get_logger()

Work = Callable[[], WorkRequest]
"""Gives the same request with that work done; touches nothing of the main thread's."""


class Ahead:
    """The main thread's end of it; the other thread starts with the first work."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._works: dict[int, Work] = {}
        self._queue: Final = queue.SimpleQueue[int]()
        self._free = threading.Semaphore()
        self._thread: threading.Thread | None = None

    def begin(self, request_id: int, work: Work) -> None:
        """Have it done; :class:`~daemon.worker.inbox.Prepared` says when it is.

        The queue has no bound of its own: the socket thread admits a bounded number of
        requests.
        """
        self._works[request_id] = work
        self._queue.put(request_id)
        if self._thread is None:
            # A daemon thread: the end of the worker does not wait for a picture.
            self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
            self._thread.start()

    def forget(self, request_id: int) -> None:
        """Leave work undone that has not begun."""
        self._works.pop(request_id, None)

    def taken(self) -> None:
        """What came last is with the main thread, or dropped: the next work may begin."""
        self._free.release()

    def _run(self) -> None:
        while True:
            request_id = self._queue.get()
            self._free.acquire()
            work = self._works.pop(request_id, None)
            if work is None:
                self._free.release()
            else:
                self._inbox.put(Prepared(request_id, _outcome(request_id, work)))
                del work


def _outcome(request_id: int, work: Work) -> WorkRequest | Fault:
    try:
        return work()
    except MlxdError as error:
        return error.fault
    except Exception as error:
        log.exception("request.failed", request=request_id)
        message = f"preparing the request failed: {type(error).__name__}: {error}"
        return Fault(code=Code.WORKER_FAILED, message=message)
