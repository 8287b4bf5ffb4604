"""Why a model is in memory, or why it is not: plain sentences with numbers and records. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from shlex import quote
from typing import Any, Final

import msgspec

from ctl.blocks import Block, Cell, Column, Line, Page, Style, Table
from ctl.story import Story, Told
from daemon.wire import control as c
from daemon.wire.sentences import cause_words, sentence
from daemon.wire.units import (
    counted,
    format_age_ms,
    format_bytes,
    format_duration_ms,
    format_until_ms,
)

CRASH_WINDOW_MS: Final = 600_000
_EVICTED_FOR: Final = {
    "workers_max": "{wanted} needed a free place (pool.workers_max)",
    "pressure": "the system was short of memory",
    "request": "as asked",
}
_UNLOADED: Final = {
    "request": "as asked",
    "ttl": "nobody had used it for its whole TTL",
    "cancelled": "nobody waited for its load any more",
    "shutdown": "mlxd was stopped",
    "pressure": "the system was short of memory",
}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: what is so, then why, and the next step if there is one.

    Attributes:
        reasons: Sentences in the order of telling; a table stands for the candidates.
    """

    headline: str
    style: Style
    reasons: tuple[str | Table, ...]

    def page(self) -> Page:
        """For people."""
        told: list[Block] = [
            reason if isinstance(reason, Table) else Line(f"  {reason}") for reason in self.reasons
        ]
        return (Line(self.headline, self.style), *told)

    def sentences(self) -> list[str]:
        """For programs that show them; the table is in the records."""
        return [reason for reason in self.reasons if isinstance(reason, str)]


class Explainer:
    """Tells one story.

    Args:
        resident: The model's slot now, None if it has none.
        known: What is known of it on disk, None if nothing is.
        zone: None is the local time zone.
    """

    def __init__(
        self,
        story: Story,
        resident: c.ResidentModel | None,
        known: c.KnownModel | None,
        status: c.StatusView,
        zone: tzinfo | None = None,
    ) -> None:
        self._story = story
        self._resident = resident
        self._known = known
        self._status = status
        self._now_ms = status.now_ms
        self._zone = zone

    def explain(self) -> Explanation:
        """Why it is here, or why it is not."""
        if self._resident is not None:
            headline, style = self._here(self._resident)
            reasons = self._why_here(self._resident)
        else:
            headline, style = self._not_here()
            reasons = self._why_not_here()
        return Explanation(headline=headline, style=style, reasons=tuple(reasons))

    # --- in memory --------------------------------------------------------------------

    def _here(self, model: c.ResidentModel) -> tuple[str, Style]:
        name = self._story.name
        match model.state:
            case "loading":
                so_far = f" ({model.progress:.0%})" if model.progress else ""
                return f"{name} is being loaded{so_far}.", "busy"
            case "idle":
                return f"{name} is in memory, and nobody uses it now.", "good"
            case "busy":
                use = f"{counted(model.leases, 'lease')}, {counted(model.running, 'request')}"
                return f"{name} is in memory and in use: {use} running.", "busy"
            case "draining" | "stopping":
                return f"{name} is leaving memory.", "warn"

    def _why_here(self, model: c.ResidentModel) -> Iterator[str | Table]:
        story = self._story
        if story.load is not None:
            yield self._loaded(story.load)
            if story.died is not None:
                yield f"Before that, at {self._when(story.died)}, {sentence(story.died.event)}."
            yield self._claim(story.load, model)
        if story.adopted is not None:
            run = f"mlxd took its worker over alive, pid {story.adopted.event['pid']},"
            yield f"{run} at {self._when(story.adopted)}."
        if model.state in ("draining", "stopping"):
            yield from self._leaving()
            return
        if model.state != "loading":
            yield self._use(model)
            yield self._protection(model)
            if self._known is not None and self._known.problem:
                yield f"Requests for it are refused, as its files are now: {self._known.problem}"
        yield from self._crashes()
        yield from self._history()

    def _loaded(self, load: Told) -> str:
        event, ready = load.event, self._story.ready
        by = ", ".join(event.get("asked_by", ())) or cause_words(load.cause)
        reason = {
            "acquire": f"for a request by {by}",
            "load": f"because {by} asked for it",
            "preload": "because pool.preload names it",
            "restore": "because it was in memory before",
            "retry": f"once more after a failure, for {by}",
        }.get(str(event.get("reason")), str(event.get("reason")))
        over = ", over the budget as --over-budget allows" if event.get("over_budget") else ""
        passed = [f"{p['model']} ({p['why']})" for p in event.get("passed_over", ())]
        first = f" Passed over before it: {'; '.join(passed)}." if passed else ""
        if ready is None:
            return f"Its load began at {self._when(load)}, {reason}{over}.{first}"
        took = format_duration_ms(ready.at_ms - load.at_ms)
        return f"Loaded in {took} at {self._when(load, ready)}, {reason}{over}.{first}"

    def _claim(self, load: Told, model: c.ResidentModel) -> str:
        whole = load.event["claim_bytes"]
        weights = load.event["model"]["weights_bytes"]
        kv_tokens = load.event["kv_tokens"]
        kv = kv_tokens * load.event["model"]["kv_token_bytes"]
        measured = f"; measured: {format_bytes(model.measured_bytes)}" * bool(model.measured_bytes)
        return (
            f"It takes {format_bytes(model.claim_bytes)} of the budget of "
            f"{format_bytes(self._status.budget_bytes)}. Reserved: {format_bytes(whole)} = weights "
            f"{format_bytes(weights)} + KV cache {format_bytes(kv)} ({kv_tokens:,} tokens) + "
            f"overhead {format_bytes(whole - weights - kv)}{measured}."
        )

    def _use(self, model: c.ResidentModel) -> str:
        served = self._story.requests
        requests = "its requests are recorded once a minute"
        if served:
            requests = f"{counted(served, 'request')} recorded since it was loaded"
        if model.state == "busy" or model.last_used_at_ms is None:
            return f"{requests[0].upper()}{requests[1:]}."
        if model.last_used_at_ms == model.loaded_at_ms and not served:
            return f"Nobody has used it since it was loaded, {self._ago(model.last_used_at_ms)}."
        return f"Idle since {self._at(model.last_used_at_ms)}; {requests}."

    def _protection(self, model: c.ResidentModel) -> str:
        story = self._story
        if model.pinned:
            pin = story.pin
            known = pin is not None and pin.type == "model.pinned"
            by = f" by {cause_words(pin.cause)} at {self._when(pin)}" if pin and known else ""
            return f"Pinned{by}: never evicted, never expired."
        if model.state == "busy":
            return "What is in use is never evicted and never expires."
        if model.expires_at_ms is None or model.last_used_at_ms is None:
            return "It has no TTL: it stays until it is unloaded, or its room is needed."
        ttl = format_duration_ms(model.expires_at_ms - model.last_used_at_ms)
        by = ""
        if story.ttl is not None:
            by = f", set by {cause_words(story.ttl.cause)} at {self._when(story.ttl)}"
        until = format_until_ms(model.expires_at_ms, self._now_ms)
        return (
            f"Unless it is used, it is unloaded at {self._clock(model.expires_at_ms)} ({until}): "
            f"its TTL is {ttl}{by}. Until then it goes only if its room is needed."
        )

    # --- not in memory ----------------------------------------------------------------

    def _not_here(self) -> tuple[str, Style]:
        story, name = self._story, self._story.name
        if self._quarantined():
            return f"{name} is not in memory and is not tried any more: it failed too often.", "bad"
        if story.load is None:
            return f"{name} was never loaded, as far as the log goes.", "plain"
        if story.failed is not None:
            reason = str(story.failed.event.get("reason")).replace("_", " ")
            return f"{name} is not in memory: its last load failed ({reason}).", "bad"
        if story.leaving is not None:
            evicted = story.leaving.type == "evict.started"
            how = "it was evicted" if evicted else "it was unloaded"
            return f"{name} is not in memory: {how}.", "plain"
        if story.exited is not None and not story.exited.event.get("expected"):
            return f"{name} is not in memory: its worker ended unexpectedly.", "bad"
        return f"{name} is not in memory: its worker is gone.", "plain"

    def _why_not_here(self) -> Iterator[str | Table]:
        story = self._story
        if story.load is None:
            yield from self._never_loaded()
        elif story.failed is not None:
            when = self._when(story.load, story.failed)
            yield f"At {when} it {sentence(story.failed.event)}."
        elif story.leaving is not None:
            yield from self._leaving()
        if story.exited is not None and not story.exited.event.get("expected"):
            yield f"At {self._when(story.exited)} {sentence(story.exited.event)}."
        if story.load is not None and story.ready is not None:
            yield f"It had been there: {self._loaded(story.load)}"
            used = story.used
            if used is not None:
                requests = counted(story.requests, "request")
                yield f"It served {requests}, the last before {self._at(used.at_ms)}."
        yield from self._crashes()
        if story.refused is not None and story.refused.seq > (story.load.seq if story.load else 0):
            yield f"At {self._when(story.refused)} mlxd {sentence(story.refused.event)}."
        yield from self._history()
        yield from self._next_step()

    def _leaving(self) -> Iterator[str | Table]:
        leaving, left = self._story.leaving, self._story.left
        if leaving is None:
            return
        if leaving.type == "evict.started":
            yield from self._evicted(leaving)
        else:
            reason = leaving.event["reason"]
            by = f", by {leaving.cause['client']}" if leaving.cause.get("client") else ""
            how = "Unloading since" if self._resident else "Unloaded at"
            yield f"{how} {self._when(leaving)}: {_UNLOADED.get(reason, reason)}{by}."
        if left is not None:
            took = format_duration_ms(left.at_ms - leaving.at_ms)
            freed = format_bytes(left.event["freed_bytes"])
            yield f"{freed} came free {took} later (record {left.seq})."

    def _evicted(self, leaving: Told) -> Iterator[str | Table]:
        event = leaving.event
        if event["reason"] == "memory" and event["wanted"]:
            why = f"{event['wanted']} needed {format_bytes(event['needed_bytes'])} more room"
        elif event["reason"] == "memory":
            why = f"claims had outgrown the budget by {format_bytes(event['needed_bytes'])}"
        else:
            why = _EVICTED_FOR.get(event["reason"], str(event["reason"])).format(**event)
        clients = event.get("for_clients") or [leaving.cause.get("client")]
        who = f", for {', '.join(clients)}" if clients[0] else ""
        how = "Being evicted since" if self._resident else "Evicted at"
        yield f"{how} {self._when(leaving)}: {why}{who}."
        if event["reason"] == "request":
            return
        yield f"The rule: {event['rule']}. These were looked at:"
        yield _candidates(leaving)

    def _crashes(self) -> Iterator[str]:
        story = self._story
        if not story.crash_count:
            return
        recent = sum(told.at_ms > self._now_ms - CRASH_WINDOW_MS for told in story.crashes)
        last = story.crashes[-1]
        yield (
            f"{counted(story.crash_count, 'crash', 'crashes')} in the log, {recent} of them in the "
            f"last 10 minutes, the last at {self._when(last)}."
        )

    def _quarantined(self) -> bool:
        quarantine = self._story.quarantine
        return quarantine is not None and quarantine.type == "model.quarantined"

    def _next_step(self) -> Iterator[str]:
        story, name = self._story, self._story.name
        if self._quarantined() and story.quarantine is not None:
            message = story.quarantine.event["message"]
            yield f"Quarantined at {self._when(story.quarantine)}: {message}."
            yield f"When the cause is mended: mlxctl unquarantine {name}"
        elif self._known is None:
            yield self._unknown()
        elif waiting := [one for one in self._status.queue if one.model == name]:
            waited = format_duration_ms(self._now_ms - waiting[0].since_ms)
            verb = "waits" if len(waiting) == 1 else "wait"
            yield (
                f"{counted(len(waiting), 'request')} for it {verb} now, for {waited} already. "
                f"What for: mlxctl load --estimate {name}"
            )
        elif self._known.problem:
            yield f"Its files rule it out: {self._known.problem}"
        elif story.failed is not None and story.failed.event.get("reason") == "incompatible":
            yield (
                "It is tried again once its files have changed, or after: "
                f"mlxctl unquarantine {name}"
            )
        else:
            yield f"The next request for it loads it, or: mlxctl load {name}"

    def _unknown(self) -> str:
        """The name is nobody's; what it was last loaded from may be a folder of the user's own."""
        load, name = self._story.load, self._story.name
        if load is None:
            return "No model of that name is on disk now (mlxctl models lists what is)."
        again = f"mlxctl load {quote(load.event['model']['path'])} --name {quote(name)}"
        return f"mlxd knows no model of that name now; from where it was loaded: {again}"

    def _never_loaded(self) -> Iterator[str]:
        story = self._story
        if story.first_at_ms is not None:
            since = self._at(story.first_at_ms)
            yield f"The log holds records 1 to {story.last_seq:,}, since {since}."
        if self._known is not None:
            known = self._known
            size = f" of {format_bytes(known.weights_bytes)}" if known.weights_bytes else ""
            kind = f"{known.kind} model" if known.kind else "model"
            yield f"It is a {kind}{size} in {known.path}."

    def _history(self) -> Iterator[str]:
        story = self._story
        if story.thrash is not None:
            yield f"At {self._when(story.thrash)} it was {sentence(story.thrash.event)}."
        if story.loads > 1 or story.evictions:
            yield (
                f"In all the log: {counted(story.loads, 'load')}, "
                f"{counted(story.evictions, 'eviction')}."
            )

    # --- moments ----------------------------------------------------------------------

    def _when(self, *told: Told) -> str:
        """The last one's moment, with the records: "14:22:10 (5m ago, record 31)"."""
        first, last = told[0].seq, told[-1].seq
        records = f"record {first}" if first == last else f"records {first} to {last}"
        return f"{self._clock(told[-1].at_ms)} ({self._ago(told[-1].at_ms)}, {records})"

    def _at(self, at_ms: int) -> str:
        return f"{self._clock(at_ms)} ({self._ago(at_ms)})"

    def _ago(self, at_ms: int) -> str:
        ago = format_age_ms(at_ms, self._now_ms)
        return "just now" if ago == "now" else ago

    def _clock(self, at_ms: int) -> str:
        at, now = self._local(at_ms), self._local(self._now_ms)
        return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"

    def _local(self, at_ms: int) -> datetime:
        return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self._zone)


def _candidates(leaving: Told) -> Table:
    columns = (
        Column("    MODEL"),
        Column("SIZE", right=True),
        Column("LAST USED"),
        Column("VERDICT"),
    )
    rows = [_candidate(one, leaving) for one in leaving.event["candidates"]]
    return Table(columns, rows)


def _candidate(one: dict[str, Any], leaving: Told) -> tuple[Cell, ...]:
    name = one["model"]
    if name == leaving.event["model"]:
        verdict = Cell("evicted", "warn")
    elif name in leaving.victims:
        verdict = Cell("evicted, too", "warn")
    else:
        verdict = Cell(one.get("why_not") or "could have gone; was not needed", "dim")
    used = format_age_ms(one["last_used_at_ms"], leaving.at_ms).replace(" ago", " before")
    return (
        Cell(f"    {name}", "title"),
        Cell(format_bytes(one["claim_bytes"])),
        Cell("just then" if used == "now" else used),
        verdict,
    )
