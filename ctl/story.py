"""What the event log says of one model: the few records that still matter, kept as they pass."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from daemon.wire.records import Event, Record

CRASHES_KEPT: Final = 64
_ABANDONED: Final = frozenset({"evict.abandoned", "unload.abandoned"})
_KEPT_AS: Final = {
    "load.ready": "ready",
    "load.failed": "failed",
    "evict.started": "leaving",
    "unload.started": "leaving",
    "evict.finished": "left",
    "unload.finished": "left",
    "worker.exited": "exited",
    "worker.adopted": "adopted",
    "model.pinned": "pin",
    "model.unpinned": "pin",
    "model.ttl_changed": "ttl",
    "model.quarantined": "quarantine",
    "model.unquarantined": "quarantine",
    "request.refused": "refused",
    "thrash.noticed": "thrash",
    "usage.recorded": "used",
}


_RELEVANT: Final = _KEPT_AS.keys() | _ABANDONED


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One event with its record; ``victims`` are all models that the record evicts."""

    seq: int
    at_ms: int
    cause: dict[str, Any]
    event: Event
    victims: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        return str(self.event.get("type"))


class Story:
    """The last load of a model, how it ended, and what holds for it now.

    Attributes:
        ready, failed, leaving, left, exited, adopted, ttl, used: Since the last load began.
        died: The unexpected end of the worker before that load, if that is how it ended.
        requests: Finished since the last load began.
        crashes: Unexpected ends of its workers and crashed loads, the last 64.
        seen: Whether the log names the model at all.
    """

    def __init__(self, name: str, path: str | None = None) -> None:
        self.name = name
        self.load: Told | None = None
        self.ready: Told | None = None
        self.failed: Told | None = None
        self.leaving: Told | None = None
        self.left: Told | None = None
        self.exited: Told | None = None
        self.died: Told | None = None
        self.adopted: Told | None = None
        self.pin: Told | None = None
        self.ttl: Told | None = None
        self.quarantine: Told | None = None
        self.refused: Told | None = None
        self.thrash: Told | None = None
        self.used: Told | None = None
        self.requests = self.loads = self.evictions = self.crash_count = 0
        self.crashes: deque[Told] = deque(maxlen=CRASHES_KEPT)
        self.seen = False
        self.first_at_ms: int | None = None
        self.last_seq = 0
        self._path = path
        self._keys: set[str] = set()
        self._worker = ""

    def take(self, record: Record) -> None:
        """Keep what ``record`` says of the model."""
        if self.first_at_ms is None:
            self.first_at_ms = record.at_ms
        self.last_seq = record.seq
        for event in record.events:
            if event.get("type") == "load.started":
                self._load_started(record, event)
            elif event.get("type") in _RELEVANT and self._is_mine(event):
                self._note(_told(record, event))

    def records(self) -> Iterator[Told]:
        """Everything kept that the explanation rests on, oldest first."""
        kept = [self.load, *(getattr(self, name) for name in dict.fromkeys(_KEPT_AS.values()))]
        unique = {(t.seq, t.type): t for t in (*kept, *self.crashes) if t is not None}
        yield from (unique[place] for place in sorted(unique))

    def _load_started(self, record: Record, event: Event) -> None:
        model = event.get("model") or {}
        key = str(model.get("key"))
        if not (model.get("name") == self.name or key in self._keys or self._lies_in(model)):
            return
        self._keys.add(key)
        self._worker = str(event.get("worker"))
        self.seen = True
        self.load = _told(record, event)
        self.loads += 1
        self.requests = 0
        ended = self.exited
        self.died = None if ended is None or ended.event.get("expected") else ended
        self.ready = self.failed = self.leaving = self.left = self.exited = None
        self.adopted = self.ttl = self.used = None

    def _lies_in(self, model: dict[str, Any]) -> bool:
        return bool(self._path) and model.get("path") == self._path and not model.get("adapter")

    def _is_mine(self, event: Event) -> bool:
        if "worker" in event:
            return str(event["worker"]) == self._worker
        return event.get("model") == self.name or event.get("key") in self._keys

    def _note(self, told: Told) -> None:
        self.seen = True
        event = told.event
        if told.type in _ABANDONED:
            self.leaving = None
            return
        setattr(self, _KEPT_AS[told.type], told)
        self.requests += event.get("requests", 0) if told.type == "usage.recorded" else 0
        self.evictions += told.type == "evict.finished"
        if (told.type == "worker.exited" and not event.get("expected")) or (
            told.type == "load.failed" and event.get("reason") == "crashed"
        ):
            self.crashes.append(told)
            self.crash_count += 1


def _told(record: Record, event: Event) -> Told:
    victims = tuple(
        str(other.get("model")) for other in record.events if other.get("type") == "evict.started"
    )
    return Told(
        seq=record.seq, at_ms=record.at_ms, cause=record.cause, event=event, victims=victims
    )
