"""The observer's own books, kept from the lines of the log alone: it believes no code of ours.

Lines are read as plain JSON. What a line says must be allowed by the lines before it;
what may be in memory, and what is in use, the machine and the clients are asked as well.
"""

from copy import copy
from typing import Any, Final

import msgspec

from tests.sim.worker import Violation

INTENTS: Final = frozenset(
    {
        "daemon.started", "daemon.settled", "daemon.stopped", "config.changed",
        "load.started", "worker.spawned", "evict.started", "unload.started",
        "model.pinned", "model.unpinned", "model.ttl_changed",
        "model.quarantined", "model.unquarantined",
        "memory.residue", "safe_mode.entered", "safe_mode.left", "log.tail_lost",
    }
)  # fmt: skip
"""What must be on disk before anybody hears of it: no loss of power may take it away."""

_decode = msgspec.json.Decoder().decode


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that the log has started and not seen gone."""

    key: str
    claim_bytes: int
    over_budget: bool
    asked_for: bool
    phase: str = "loading"


class Books:
    """What the lines so far add up to.

    Attributes:
        seq: Of the last line.
        durable_seq: Up to here a loss of power may take nothing away.
        ceiling_bytes: More cannot be in memory: the budget, or one before it that what is in
            memory now was loaded under.
        intended: Workers whose load was ever recorded; ``recorded``: whose process was.
        changes: How often what may be loaded at all has changed.
        troubled: Models of which any load or worker ever failed.
        leaving: When which worker was told to leave and why, since it was last looked at.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.durable_seq = 0
        self.at_ms = 0
        self.limits: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        self.residues: dict[str, tuple[int, str]] = {}
        self.boot_id = ""
        self.generation = 0
        self.pins: frozenset[str] = frozenset()
        self.quarantined: frozenset[str] = frozenset()
        self.troubled: frozenset[str] = frozenset()
        self.pressure = "normal"
        self.safe_mode = False
        self.unclean = 0
        self.run_ended_well = True
        self.ceiling_bytes = 0
        self.intended: set[str] = set()
        self.recorded: set[str] = set()
        self.changes = 0
        self.leaving: list[tuple[int, str, str]] = []

    def copy(self) -> "Books":
        """A copy that goes its own way."""
        other = copy(self)
        other.entries, other.residues = dict(self.entries), dict(self.residues)
        other.intended, other.recorded = set(self.intended), set(self.recorded)
        other.leaving = []
        return other

    def read(self, text: str) -> None:
        """The next line.

        Raises:
            Violation: It may not follow the lines before it.
        """
        line: dict[str, Any] = _decode(text)
        if line["seq"] != self.seq + 1:
            raise Violation(f"record {line['seq']} follows record {self.seq}")
        if line["at_ms"] < self.at_ms:
            raise Violation(f"time went back in record {line['seq']}")
        self.seq, self.at_ms = line["seq"], line["at_ms"]
        for event in line["events"]:
            kind = event["type"]
            if kind in INTENTS:
                self.durable_seq = self.seq
            self._take(kind, event)
        if "daemon.started" in text:
            self._check_safe_mode()

    @property
    def claims_bytes(self) -> int:
        """Of all that is or will be in memory, but for what was let in over the budget."""
        return sum(e.claim_bytes for e in self.entries.values() if not e.over_budget)

    @property
    def over_bytes(self) -> int:
        return sum(e.claim_bytes for e in self.entries.values() if e.over_budget)

    @property
    def budget_bytes(self) -> int:
        residue = sum(r for r, boot_id in self.residues.values() if boot_id == self.boot_id)
        return max(int(self.limits["budget_bytes"]) - residue, 0)

    # --- one event ------------------------------------------------------------------------

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        worker: str = event.get("worker", "")
        match kind:
            case "load.started":
                self._load_started(worker, event)
            case "worker.spawned":
                self.recorded.add(worker)
            case "load.ready" | "evict.abandoned" | "unload.abandoned":
                self._become(worker, "there")
            case "load.failed":
                self.troubled |= {self.entries[worker].key}
                self._become(worker, "leaving")
            case "evict.started" | "unload.started":
                self._told_to_leave(kind, worker, event)
            case "worker.exited":
                self._exited(worker, event)
            case "model.pinned":
                self.pins |= {event["key"]}
                self.changes += 1
            case "model.unpinned":
                self.pins -= {event["key"]}
            case "model.quarantined":
                self.quarantined |= {event["key"]}
                self.troubled |= {event["key"]}
            case "model.unquarantined":
                self.quarantined -= {event["key"]}
            case _:
                self._take_condition(kind, worker, event)

    def _take_condition(self, kind: str, worker: str, event: dict[str, Any]) -> None:
        match kind:
            case "daemon.started":
                self._daemon_started(event)
            case "daemon.settled" | "daemon.stopped":
                self.run_ended_well = True
            case "config.changed" if event.get("limits"):
                self._limit(event["limits"])
            case "memory.residue":
                self.residues[worker] = (event["residue_bytes"], event["boot_id"])
                self.changes += 1
                self._lower_ceiling()
            case "memory.pressure":
                self.pressure = event["level"]
            case "safe_mode.entered":
                self.safe_mode = True
            case "safe_mode.left":
                self.safe_mode = False

    def _become(self, worker: str, phase: str) -> None:
        self.entries[worker] = msgspec.structs.replace(self.entries[worker], phase=phase)

    # --- what may be loaded -------------------------------------------------------------------

    def _load_started(self, worker: str, event: dict[str, Any]) -> None:
        key, reason = event["model"]["key"], event["reason"]
        entry = Entry(
            key=key,
            claim_bytes=event["claim_bytes"],
            over_budget=event.get("over_budget", False),
            asked_for=reason not in ("preload", "restore"),
        )
        self._check_load(worker, entry)
        self.entries[worker] = entry
        self.changes += key in self.pins  # its room is nobody else's from now on
        self.intended.add(worker)
        self._lower_ceiling()

    def _check_load(self, worker: str, entry: Entry) -> None:
        if any(other.key == entry.key for other in self.entries.values()):
            raise Violation(f"{entry.key} has two workers")
        if worker in self.intended:
            raise Violation(f"{worker} is started a second time")
        if self.pressure != "normal":
            raise Violation(f"{entry.key} is loaded under {self.pressure} pressure")
        if self.safe_mode and not entry.asked_for:
            raise Violation(f"{entry.key} is brought back in safe mode")
        if entry.key in self.quarantined:
            raise Violation(f"{entry.key} is loaded in quarantine")
        total_bytes = self.claims_bytes + self.over_bytes + entry.claim_bytes
        if not entry.over_budget and total_bytes > self.budget_bytes:
            raise Violation(f"{total_bytes} bytes claimed, the budget is {self.budget_bytes}")
        workers_max = self.limits.get("workers_max")
        if workers_max is not None and len(self.entries) >= workers_max:
            raise Violation(f"{len(self.entries) + 1} workers, {workers_max} are allowed")
        loads = [e for e in self.entries.values() if e.phase == "loading" and e.asked_for]
        if entry.asked_for and len(loads) >= self.limits.get("loads_max", 1):
            raise Violation(f"{len(loads) + 1} loads at once")

    def _limit(self, limits: dict[str, Any]) -> None:
        self.limits = limits
        self.changes += 1
        self._lower_ceiling()

    def _lower_ceiling(self) -> None:
        """What was loaded under a greater budget may stay until it is asked to leave."""
        if self.claims_bytes <= self.budget_bytes:
            self.ceiling_bytes = self.budget_bytes
        else:
            self.ceiling_bytes = max(self.ceiling_bytes, self.budget_bytes)

    # --- who may be told to leave -------------------------------------------------------------

    def _told_to_leave(self, kind: str, worker: str, event: dict[str, Any]) -> None:
        entry, reason = self.entries[worker], event["reason"]
        if entry.key in self.pins and reason in ("memory", "workers_max", "pressure", "ttl"):
            raise Violation(f"{entry.key} is pinned and leaves for {reason}")
        if kind == "evict.started" and entry.phase != "there":
            raise Violation(f"{entry.key} is {entry.phase} and evicted")
        if kind == "evict.started" and reason != "request":
            free = [c["model"] for c in event["candidates"] if c.get("why_not") is None]
            if event["model"] not in free:
                raise Violation(f"{entry.key} is evicted, and was no candidate")
        self.changes += reason == "cancelled"  # whoever waited for it goes on along its chain
        self.leaving.append((self.at_ms, worker, reason))
        self._become(worker, "leaving")

    def _exited(self, worker: str, event: dict[str, Any]) -> None:
        entry = self.entries.pop(worker)
        if not event["expected"] and event.get("exit_code") != 0:
            self.troubled |= {entry.key}
        self._lower_ceiling()

    # --- the daemon ---------------------------------------------------------------------------

    def _daemon_started(self, event: dict[str, Any]) -> None:
        if event["generation"] != self.generation + 1:
            raise Violation(f"generation {event['generation']} follows {self.generation}")
        self.generation = event["generation"]
        self.boot_id = event["boot_id"]
        self.pressure = "normal"
        self.safe_mode = False
        self.unclean = 0 if self.run_ended_well else self.unclean + 1
        self.run_ended_well = False
        self._limit(event["limits"])

    def _check_safe_mode(self) -> None:
        wanted = self.unclean >= self.limits.get("unclean_starts_max", 3)
        if wanted != self.safe_mode:
            raise Violation(f"safe mode {self.safe_mode} after {self.unclean} unclean runs")
