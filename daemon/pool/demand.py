"""What was asked of the pool, read back from its own events: who came when, for how long."""

from typing import Literal

import msgspec

from daemon.pool import messages as m

Kind = Literal["use", "load", "wish", "unload", "evict", "pin", "unpin", "ttl", "limits", "down"]


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that came from outside, at its time.

    Attributes:
        kind: "use" is a request that held the model for ``hold_ms``; "wish" a preload or a
            restore; "limits" a configuration; "down" the end of all workers.
        key: The model's; empty for what is about none.
        ttl_ms: With "ttl": the idle time set.
        limits: With "limits": what was configured.
    """

    at_ms: int
    kind: Kind
    key: str = ""
    hold_ms: int = 0
    ttl_ms: int | None = None
    limits: m.Limits | None = None


class Load(msgspec.Struct, kw_only=True):
    """One recorded load of a model.

    Attributes:
        option: With the terms that were in force.
        spawn_ms: From the decision to load it until its worker began to.
        load_ms: What it took after that; None if it did not end well.
    """

    at_ms: int
    option: m.Option
    spawn_ms: int = 0
    load_ms: int | None = None
    measured_bytes: int = 0


class Subject:
    """What the log teaches of one model: its loads, oldest first, at least one."""

    def __init__(self, *loads: Load) -> None:
        self.loads = list(loads)

    def option_at(self, at_ms: int) -> m.Option:
        """The model with its terms as they were at that time."""
        return self.loads[self._index(at_ms)].option

    def load_at(self, at_ms: int) -> Load | None:
        """How the last load by then went, or the next one; None if none ever ended well."""
        index = self._index(at_ms)
        by_nearness = (*reversed(self.loads[: index + 1]), *self.loads[index + 1 :])
        return next((load for load in by_nearness if load.load_ms is not None), None)

    def _index(self, at_ms: int) -> int:
        """Of the last load that began by then; of the first if none did."""
        low, high = 0, len(self.loads)
        while low < high:
            middle = (low + high) // 2
            if self.loads[middle].at_ms <= at_ms:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)


class DemandReader:
    """Reads demand from events, record by record; :meth:`finish` gives it in order of time.

    Attributes:
        subjects: The models by key.
        dropped: Requests that usage records count without their times.
        strangers: Requests for models that the log never loads.
        exit_ms: Between the decision that a worker ends and its end, each.
    """

    def __init__(self) -> None:
        self.subjects: dict[str, Subject] = {}
        self.dropped = self.strangers = 0
        self.exit_ms: list[int] = []
        self._demands: list[Demand] = []
        self._key_of: dict[str, str] = {}
        self._cold: dict[str, int] = {}
        self._load_of: dict[str, Load] = {}
        self._leaving: dict[str, int] = {}
        self._boot_id: str | None = None

    def take(self, at_ms: int, cause: m.Cause, events: tuple[m.DurableEvent, ...]) -> None:
        """Read one record."""
        for event in events:
            self._event(at_ms, cause, event)

    def finish(self) -> list[Demand]:
        """All demand, oldest first."""
        for key in list(self._cold):
            self._served(key)
        return sorted(self._demands, key=lambda demand: demand.at_ms)

    def _event(self, at_ms: int, cause: m.Cause, event: m.DurableEvent) -> None:
        match event:
            case m.LoadStarted() | m.LoadReady() | m.WorkerExited():
                self._load(at_ms, event)
            case m.EvictStarted() | m.UnloadStarted():
                self._leave(at_ms, event)
            case m.UsageRecorded():
                self._usage(at_ms, event)
            case m.ModelPinned():
                self._add(at_ms, "pin", event.key)
            case m.ModelUnpinned():
                self._add(at_ms, "unpin", event.key)
            case m.ModelTtlChanged():
                ttl = Demand(at_ms=at_ms, kind="ttl", key=event.key, ttl_ms=event.ttl_ms)
                self._demands.append(ttl)
            case m.DaemonStarted():
                self._daemon_started(at_ms, event)
            case m.ConfigChanged() if event.limits is not None:
                self._demands.append(Demand(at_ms=at_ms, kind="limits", limits=event.limits))
            case m.DaemonStopped() if cause.command != "detach":
                self._add(at_ms, "down")
            case _:
                pass  # what follows from demand, and is decided anew

    def _load(self, at_ms: int, event: m.LoadStarted | m.LoadReady | m.WorkerExited) -> None:
        match event:
            case m.LoadStarted():
                self._load_started(at_ms, event)
            case m.LoadReady():
                self._load_ready(at_ms, event)
            case m.WorkerExited():
                self._load_of.pop(event.worker, None)
                self._served(self._key_of.pop(event.worker, ""))
                began_ms = self._leaving.pop(event.worker, None)
                if began_ms is not None:
                    self.exit_ms.append(at_ms - began_ms)

    def _load_started(self, at_ms: int, event: m.LoadStarted) -> None:
        key = event.model.key
        terms = m.Terms(ttl_ms=event.ttl_ms, rows_max=event.rows_max)
        option = m.Option(model=event.model, terms=terms)
        self._key_of[event.worker] = key
        load = Load(at_ms=at_ms, option=option)
        self.subjects.setdefault(key, Subject()).loads.append(load)
        self._load_of[event.worker] = load
        match event.reason:
            case "acquire" | "retry":
                self._served(key)
                self._cold[key] = at_ms
            case "load":
                self._add(at_ms, "load", key)
            case "preload" | "restore":
                self._add(at_ms, "wish", key)

    def _load_ready(self, at_ms: int, event: m.LoadReady) -> None:
        load = self._load_of.pop(event.worker, None)
        if load is not None:
            load.load_ms, load.measured_bytes = event.load_ms, event.measured_bytes
            load.spawn_ms = max(at_ms - load.at_ms - event.load_ms, 0)

    def _leave(self, at_ms: int, event: m.EvictStarted | m.UnloadStarted) -> None:
        self._leaving[event.worker] = at_ms
        if event.reason == "request":
            kind: Kind = "evict" if isinstance(event, m.EvictStarted) else "unload"
            self._add(at_ms, kind, self._key_of.get(event.worker, ""))

    def _usage(self, at_ms: int, event: m.UsageRecorded) -> None:
        self.dropped += event.arrivals_dropped
        if event.key not in self.subjects:
            self.strangers += event.requests
            return
        began_ms = at_ms - event.window_ms
        for offset_ms, hold_ms in event.arrivals:
            came_ms = began_ms + offset_ms
            if event.key in self._cold:
                # It waited for the load that it was the reason for.
                came_ms = min(came_ms, self._cold.pop(event.key))
            use = Demand(at_ms=came_ms, kind="use", key=event.key, hold_ms=hold_ms)
            self._demands.append(use)

    def _served(self, key: str) -> None:
        """A load for a request that no usage tells of: it left, or it failed."""
        if key in self._cold:
            self._add(self._cold.pop(key), "use", key)

    def _daemon_started(self, at_ms: int, event: m.DaemonStarted) -> None:
        if self._boot_id not in (None, event.boot_id):
            self._add(at_ms, "down")  # the machine was restarted
        self._boot_id = event.boot_id
        limits = event.limits or m.Limits(budget_bytes=event.budget_bytes)
        self._demands.append(Demand(at_ms=at_ms, kind="limits", limits=limits))

    def _add(self, at_ms: int, kind: Kind, key: str = "") -> None:
        self._demands.append(Demand(at_ms=at_ms, kind=kind, key=key))
