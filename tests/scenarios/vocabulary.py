"""The words of the stories' commands."""

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from daemon.pool import messages as m
from daemon.pool.state import Pool
from daemon.wire.units import parse_bytes, parse_duration_s


class Words(msgspec.Struct, frozen=True):
    """A line taken apart: verb, plain words, ``name=value`` pairs, and the text after ``:``."""

    verb: str
    rest: tuple[str, ...]
    named: dict[str, str]
    flags: frozenset[str]
    text: str

    @classmethod
    def of(cls, line: str) -> Self:
        head, _, text = line.partition(" : ")
        verb, *words = head.split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        flags = {"pin", "over_budget", "blameless"}.intersection(words)
        rest = tuple(word for word in words if "=" not in word and word not in flags)
        if verb == "pin":
            rest = tuple(words)
        return cls(verb, rest, named, frozenset(flags), text.strip())

    def duration_ms(self, name: str) -> int | None:
        return int(parse_duration_s(self.named[name]) * 1000) if name in self.named else None

    def bytes_of(self, name: str, default: int = 0) -> int:
        return parse_bytes(self.named[name]) if name in self.named else default


def command_of(
    words: Words, options: Mapping[str, m.Option], pool: Pool, now_ms: int
) -> m.AnyCommand:
    """The command that a line means."""
    if words.verb in ("acquire", "load"):
        return _ask(words, options, now_ms)
    if words.verb in ("unload", "evict", "pin", "unpin", "set_ttl", "unquarantine"):
        return _verb(words)
    if words.rest and words.rest[0].startswith("w"):
        return _report(words)
    return _other(words, options, pool)


def _ask(words: Words, options: Mapping[str, m.Option], now_ms: int) -> m.Acquire | m.Load:
    ticket, names = words.rest
    chosen = tuple(options[name] for name in names.split(","))
    wait_ms = words.duration_ms("wait")
    common: dict[str, Any] = {
        "ticket": int(ticket),
        "options": chosen,
        "ttl_ms": "never" if words.named.get("ttl") == "never" else words.duration_ms("ttl"),
    }
    if words.verb == "acquire":
        deadline_ms = now_ms + (120_000 if wait_ms is None else wait_ms)
        return m.Acquire(
            client=words.named.get("by", "app"),
            deadline_at_ms=deadline_ms,
            priority=int(words.named.get("priority", "0")),
            **common,
        )
    return m.Load(
        client=words.named.get("by", "mlxctl"),
        deadline_at_ms=None if wait_ms is None else now_ms + wait_ms,
        pin="pin" in words.flags,
        over_budget="over_budget" in words.flags,
        **common,
    )


def _verb(words: Words) -> m.AnyCommand:
    kinds: dict[str, Any] = {
        "unload": m.Unload,
        "evict": m.Evict,
        "pin": m.Pin,
        "unpin": m.Unpin,
        "unquarantine": m.Unquarantine,
        "set_ttl": m.SetTtl,
    }
    ticket, name = words.rest[:2]
    extra: dict[str, Any] = {}
    if words.verb == "set_ttl":
        extra["ttl_ms"] = words.duration_ms("ttl")
    command: m.AnyCommand = kinds[words.verb](
        ticket=int(ticket), client="mlxctl", key=f"/{name}", name=name, **extra
    )
    return command


def _report(words: Words) -> m.AnyCommand:  # noqa: C901, PLR0911, PLR0912 - one a verb
    worker, *rest = words.rest
    match words.verb:
        case "spawned":
            return m.ReportSpawned(worker=worker, pid=10, start_time=1.0, boot_id="b1")
        case "progress":
            return m.ReportProgress(
                worker=worker, done_bytes=parse_bytes(rest[0]), total_bytes=parse_bytes("4G")
            )
        case "ready":
            return m.ReportReady(
                worker=worker,
                measured_bytes=parse_bytes(rest[0]),
                load_ms=words.duration_ms("in") or 3_000,
                context_tokens=8192,
            )
        case "failed":
            reason = msgspec.convert(rest[0], m.FailureReason)
            return m.ReportLoadFailed(worker=worker, reason=reason, message=words.text)
        case "running":
            return m.ReportRunning(worker=worker, running=int(rest[0]), leases=tuple(rest[1:]))
        case "measured":
            return m.ReportMeasured(worker=worker, measured_bytes=parse_bytes(rest[0]))
        case "drained":
            return m.ReportDrained(worker=worker)
        case "still_busy":
            return m.ReportStillBusy(worker=worker, running=int(rest[0]))
        case "exit":
            return m.ReportExit(
                worker=worker,
                blameless="blameless" in words.flags,
                exit_code=int(words.named["code"]) if "code" in words.named else None,
                signal=int(words.named["signal"]) if "signal" in words.named else None,
                said=words.text or None,
            )
        case "adopted":
            return m.ReportAdopted(
                worker=worker,
                pid=10,
                phase=msgspec.convert(rest[0], Any),
                measured_bytes=words.bytes_of("measured"),
                running=int(words.named.get("running", "0")),
            )
        case "used":
            return m.ReportUsage(
                worker=worker,
                window_ms=60_000,
                requests=int(rest[0]),
                prompt_tokens=10,
                completion_tokens=20,
                busy_ms=500,
            )
        case "residue":
            return m.ReportResidue(worker=worker, residue_bytes=parse_bytes(rest[0]))
        case _:
            raise ValueError(f"not understood: {words.verb}")


def _other(  # noqa: C901, PLR0911, PLR0912 - one a verb
    words: Words, options: Mapping[str, m.Option], pool: Pool
) -> m.AnyCommand:
    match words.verb:
        case "release":
            return m.Release(leases=words.rest)
        case "withdraw":
            return m.Withdraw(tickets=tuple(int(ticket) for ticket in words.rest))
        case "clear_safe_mode":
            return m.ClearSafeMode(ticket=int(words.rest[0]), client="mlxctl")
        case "pressure":
            return m.ReportPressure(level=msgspec.convert(words.rest[0], m.PressureLevel))
        case "spare_ended":
            return m.ReportSpareEnded(spare=words.rest[0], why=words.text)
        case "slept":
            return m.ReportClockJump(by_ms=int(parse_duration_s(words.rest[0]) * 1000))
        case "log":
            return m.ReportLog(blocked=words.text or None)
        case "stop":
            return m.Stop(reason="SIGTERM")
        case "detach":
            return m.Detach(reason="upgrade")
        case "stopped":
            return m.Stopped(reason="SIGTERM")
        case "configure":
            limits = msgspec.structs.replace(
                pool.limits, budget_bytes=words.bytes_of("budget", pool.limits.budget_bytes)
            )
            return m.Configure(limits=limits, keys=("pool.memory",))
        case "preload" | "restore":
            reason: m.LoadReason = "preload" if words.verb == "preload" else "restore"
            wishes = tuple(m.Wish(option=options[n], reason=reason) for n in words.rest)
            return m.Restore(wishes=wishes)
        case _:
            raise ValueError(f"not understood: {words.verb}")
