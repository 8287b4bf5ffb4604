"""``simulate``: the log's demand under other rules, beside what really happened."""

from collections.abc import Iterable
from statistics import median
from typing import Final

import msgspec

from daemon.eventlog.record import Record
from daemon.pool import messages as m
from daemon.pool.demand import DemandReader
from daemon.pool.simulate import Outcome, Rules, Simulation
from daemon.pool.state import PolicyName
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import parse_duration_s

EXIT_MS_GUESS: Final = 500
"""How long a worker takes to end, where the log has none that did."""

POLICY_HINT: Final = 'give "lru" or "largest-first", "ttl=10m", or both: "largest-first,ttl=10m"'
_POLICIES: Final[dict[str, PolicyName]] = {"lru": "lru", "largest-first": "largest_first"}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Three answers to the same demand.

    Attributes:
        recorded: What the log says happened.
        replayed: The simulation under the rules that were in force: how true it is.
        simulated: The simulation under ``rules``.
        dropped: Requests whose times the log does not hold: they are in no simulation.
    """

    since_at_ms: int
    until_at_ms: int
    rules: Rules
    recorded: Outcome
    replayed: Outcome
    simulated: Outcome
    dropped: int


def parse_policy(text: str, budget_bytes: int | None = None) -> Rules:
    """The rules that ``text`` names.

    Raises:
        MlxdError: ``invalid_request`` if it names none, or two of a kind that differ.
    """
    rules = Rules(budget_bytes=budget_bytes)
    given: dict[bool, str] = {}
    for part in map(str.strip, text.split(",")):
        word, _, value = part.partition("=")
        before = given.setdefault(word == "ttl", part)
        if word in _POLICIES and not value:
            rules = msgspec.structs.replace(rules, policy=_POLICIES[word])
        elif word == "ttl" and value:
            ttl_ms = round(parse_duration_s(value, field="policy") * 1000)
            rules = msgspec.structs.replace(rules, ttl_ms=ttl_ms)
        else:
            raise _bad_policy(f"{part!r} is not a policy")
        if before != part:
            raise _bad_policy(f"{before!r} and {part!r} contradict each other")
    return rules


def _bad_policy(why: str) -> MlxdError:
    return MlxdError(
        Code.INVALID_REQUEST, f"{why}; {POLICY_HINT}", hint=POLICY_HINT, field="policy"
    )


def compare(records: Iterable[Record], rules: Rules, since_ms: int) -> Comparison:
    """Read the log once, and simulate its demand twice.

    Args:
        since_ms: What happened before only warms the pool up.

    Raises:
        MlxdError: ``not_found`` if the log holds nothing since then.
    """
    reader, happened = DemandReader(), _Recorded(since_ms)
    last_ms = 0
    for record in records:
        last_ms = record.at_ms
        reader.take(record.at_ms, record.cause, record.events)
        happened.take(record)
    if last_ms < since_ms or not last_ms:
        raise MlxdError(Code.NOT_FOUND, "the event log holds nothing since then")
    demands = reader.finish()
    exit_ms = round(median(reader.exit_ms)) if reader.exit_ms else EXIT_MS_GUESS

    def simulated(rules: Rules) -> Outcome:
        simulation = Simulation(reader.subjects, rules, since_ms=since_ms, exit_ms=exit_ms)
        return simulation.run(demands, last_ms)

    return Comparison(
        since_at_ms=max(since_ms, happened.first_ms),
        until_at_ms=last_ms,
        rules=rules,
        recorded=happened.outcome,
        replayed=simulated(Rules()),
        simulated=simulated(rules),
        dropped=reader.dropped + reader.strangers,
    )


class _Recorded:
    """Counts what the log says happened, as the simulation counts its own."""

    def __init__(self, since_ms: int) -> None:
        self.outcome = Outcome()
        self.first_ms = 0
        self._since_ms = since_ms
        self._claims: dict[str, int] = {}

    def take(self, record: Record) -> None:
        self.first_ms = self.first_ms or record.at_ms
        for event in record.events:
            self._claim(event)
            if record.at_ms >= self._since_ms:
                self.outcome.count(event)
                self._count(event)

    def _claim(self, event: m.DurableEvent) -> None:
        match event:
            case m.LoadStarted():
                self._claims[event.worker] = event.claim_bytes
            case m.LoadReady() if event.worker in self._claims:
                reserved_bytes = self._claims[event.worker]
                self._claims[event.worker] = max(reserved_bytes, event.measured_bytes)
            case m.WorkerExited():
                self._claims.pop(event.worker, None)
            case _:
                pass

    def _count(self, event: m.DurableEvent) -> None:
        claimed_bytes = sum(self._claims.values())
        self.outcome.peak_bytes = max(self.outcome.peak_bytes, claimed_bytes)
        if isinstance(event, m.UsageRecorded):
            self.outcome.requests += event.requests
            self._wait(event.waits)
        elif isinstance(event, m.RequestRefused):
            self.outcome.requests += event.count
            self.outcome.refused += event.count

    def _wait(self, waits: m.Waits | None) -> None:
        """Older daemons recorded none: what nobody knows is not added up."""
        if waits is not None:
            self.outcome.waits = (self.outcome.waits or m.Waits()).and_those(waits)
