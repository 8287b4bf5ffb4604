"""Which events somebody wants to see."""

from fnmatch import fnmatchcase

import msgspec

from daemon.wire.records import Event, ModelNames, Record


class Filter(msgspec.Struct, frozen=True):
    """Which events somebody wants to see; None wants all.

    Attributes:
        type: A glob over event types, such as "load.*".
        model: A glob over model names.
        since_ms: Only of records that are no older.
    """

    type: str | None = None
    model: str | None = None
    since_ms: int | None = None

    @property
    def narrow(self) -> bool:
        return (self.type, self.model, self.since_ms) != (None, None, None)

    def events(self, record: Record, names: ModelNames) -> tuple[Event, ...]:
        """The events of ``record`` that pass."""
        if self.since_ms is not None and record.at_ms < self.since_ms:
            return ()
        return tuple(event for event in record.events if self._passes(event, names))

    def _passes(self, event: Event, names: ModelNames) -> bool:
        if self.type is not None and not fnmatchcase(str(event.get("type")), self.type):
            return False
        return self.model is None or fnmatchcase(names.name(event), self.model)
