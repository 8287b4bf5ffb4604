"""What each event means, in one plain sentence made of its own fields. Pure.

An event of a kind or version that this program does not know is shown with its fields as
they are: nothing is hidden, and nothing fails.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from daemon.wire.units import counted, format_bytes, format_duration_ms

Fields = Mapping[str, Any]
Sentence = Callable[[Fields], str]

_SHOWN_APART: Final = frozenset({"type", "v", "model"})
_LOAD_REASONS: Final = {
    "acquire": "for a request",
    "load": "as asked",
    "preload": "as configured",
    "restore": "again, as it was in memory before",
    "retry": "again after a failure",
}
_UNLOAD_REASONS: Final = {
    "request": "as asked",
    "ttl": "idle for its whole TTL",
    "cancelled": "nobody waits for it any more",
    "shutdown": "the daemon stops",
    "pressure": "the system is short of memory",
}


def sentence(event: Fields) -> str:
    """The event's meaning, without the model's name, which stands beside it."""
    known = SENTENCES.get(str(event.get("type")))
    if known is None:
        return _fields(event)
    try:
        return known(event)
    except (KeyError, TypeError, ValueError, AttributeError):
        return _fields(event)


def cause_words(cause: Fields) -> str:
    """Who or what made it happen: a client and its command, or what goes on inside."""
    command = str(cause.get("command", ""))
    if client := cause.get("client"):
        return f"{client} {command}"
    if command.startswith("report_"):
        return "worker"
    return {"tick": "timer", "start": "start-up", "stop": "shutdown", "stopped": "shutdown"}.get(
        command, command
    )


def _fields(event: Fields) -> str:
    return " ".join(f"{key}={value}" for key, value in event.items() if key not in _SHOWN_APART)


# --- the daemon -----------------------------------------------------------------


def _daemon_started(e: Fields) -> str:
    return (
        f"mlxd {e['version']} started as pid {e['pid']}, run {e['generation']}, "
        f"budget {format_bytes(e['budget_bytes'])} of {format_bytes(e['memory_total_bytes'])}"
    )


def _daemon_stopped(e: Fields) -> str:
    return f"mlxd stopped, run {e['generation']}: {e['reason']}"


def _clock_jumped(e: Fields) -> str:
    return f"the clock jumped ahead by {format_duration_ms(e['by_ms'])}; deadlines are shifted"


def _config_changed(e: Fields) -> str:
    return f"configuration changed: {', '.join(e['keys'])}"


def _log_tail_lost(e: Fields) -> str:
    return f"{counted(e['lost_bytes'], 'byte')} of a torn tail cut off, kept as {e['kept_as']}"


# --- loads ----------------------------------------------------------------------


def _load_started(e: Fields) -> str:
    reason = _LOAD_REASONS.get(e["reason"], e["reason"])
    by_itself = e["reason"] == "restore" or not e["asked_by"]
    asked = "" if by_itself else f" by {', '.join(e['asked_by'])}"
    over = ", over the budget" if e.get("over_budget") else ""
    return f"loading {reason}{asked}: {format_bytes(e['claim_bytes'])} reserved{over}"


def _worker_spawned(e: Fields) -> str:
    return f"worker {e['worker']} runs as pid {e['pid']}"


def _load_ready(e: Fields) -> str:
    return (
        f"ready after {format_duration_ms(e['load_ms'])} of loading: "
        f"{format_bytes(e['measured_bytes'])} measured, context {e['context_tokens']:,} tokens"
    )


def _load_failed(e: Fields) -> str:
    return f"could not be loaded ({e['reason'].replace('_', ' ')}): {e['message']}"


def _worker_adopted(e: Fields) -> str:
    running = f" with {counted(e['running'], 'request')} running" if e["running"] else ""
    return f"worker {e['worker']} (pid {e['pid']}) taken over alive{running}"


def _worker_exited(e: Fields) -> str:
    if e["expected"]:
        return f"worker {e['worker']} ended"
    how = "ended unexpectedly"
    if e.get("signal") is not None:
        how = f"was killed by signal {e['signal']}"
    elif e.get("exit_code") is not None:
        how = f"ended unexpectedly with exit code {e['exit_code']}"
    said = f", saying: {e['said']}" if e.get("said") else ""
    lost = f"; {counted(e['running'], 'request')} failed" if e.get("running") else ""
    return f"worker {e['worker']} {how}{said}{lost}"


# --- evictions and unloads --------------------------------------------------------


def _evict_started(e: Fields) -> str:
    why = {
        "memory": f"{e['wanted']} needs {format_bytes(e['needed_bytes'])} more",
        "workers_max": f"{e['wanted']} needs a free place (workers_max)",
        "pressure": "the system is short of memory",
        "request": "as asked",
    }[e["reason"]]
    if e["reason"] == "request":
        return f"evicting: {why}"
    looked_at = counted(len(e["candidates"]), "candidate")
    return f"evicting: {why}; chosen from {looked_at} by the rule {e['rule']}"


def _evict_finished(e: Fields) -> str:
    return f"evicted: {format_bytes(e['freed_bytes'])} freed"


def _abandoned(e: Fields) -> str:
    return f"stays after all: {counted(e['running'], 'request')} came in"


def _unload_started(e: Fields) -> str:
    return f"unloading: {_UNLOAD_REASONS.get(e['reason'], e['reason'])}"


def _unload_finished(e: Fields) -> str:
    return f"unloaded: {format_bytes(e['freed_bytes'])} freed"


# --- care -------------------------------------------------------------------------


def _ttl_changed(e: Fields) -> str:
    if e["ttl_ms"] is None:
        return "stays until it is unloaded or evicted"
    return f"may be unloaded after {format_duration_ms(e['ttl_ms'])} without use"


def _quarantined(e: Fields) -> str:
    return f"not tried any more after {counted(e['failures'], 'failure')}: {e['message']}"


def _request_refused(e: Fields) -> str:
    times = f" {e['count']:,} times" if e.get("count", 1) > 1 else ""
    return f"refused {e['client']}{times} ({e['code'].replace('_', ' ')}): {e['message']}"


def _thrash_noticed(e: Fields) -> str:
    window = format_duration_ms(e["window_ms"])
    clients = f"; asked for by {', '.join(e['clients'])}" if e["clients"] else ""
    return f"evicted {counted(e['evictions'], 'time')} in {window}{clients}"


def _memory_pressure(e: Fields) -> str:
    said = {
        "normal": "the system has memory again",
        "soft": "the system is short of memory: no new loads",
        "hard": "the system is very short of memory: idle models go",
    }[e["level"]]
    trimmed = e.get("trimmed")
    return f"{said}; told to drop their caches: {', '.join(trimmed)}" if trimmed else said


def _memory_residue(e: Fields) -> str:
    size = format_bytes(e["residue_bytes"])
    return f"{size} did not come back after worker {e['worker']} ended; a reboot frees them"


def _usage_recorded(e: Fields) -> str:
    return (
        f"{counted(e['requests'], 'request')}: {e['prompt_tokens']:,} tokens read, "
        f"{e['completion_tokens']:,} written, busy {format_duration_ms(e['busy_ms'])} "
        f"of {format_duration_ms(e['window_ms'])}{_waited(e.get('waits'))}"
    )


def _waited(waits: dict[str, int] | None) -> str:
    if not waits or not waits["requests"]:
        return ""
    longest = format_duration_ms(waits["longest_ms"])
    return f"; {counted(waits['requests'], 'request')} waited, {longest} at most"


def _safe_mode_entered(e: Fields) -> str:
    kept_out = f"; not tried: {', '.join(e['quarantined'])}" if e.get("quarantined") else ""
    return f"safe mode after {counted(e['unclean_starts'], 'unclean start')}{kept_out}"


SENTENCES: Final[dict[str, Sentence]] = {
    "daemon.started": _daemon_started,
    "daemon.settled": lambda e: f"run {e['generation']} has lasted: no failed start",
    "daemon.stopped": _daemon_stopped,
    "clock.jumped": _clock_jumped,
    "config.changed": _config_changed,
    "load.started": _load_started,
    "worker.spawned": _worker_spawned,
    "load.ready": _load_ready,
    "load.failed": _load_failed,
    "worker.adopted": _worker_adopted,
    "worker.exited": _worker_exited,
    "evict.started": _evict_started,
    "evict.finished": _evict_finished,
    "evict.abandoned": _abandoned,
    "unload.started": _unload_started,
    "unload.finished": _unload_finished,
    "unload.abandoned": _abandoned,
    "model.pinned": lambda _: "pinned: never evicted, never expired",
    "model.unpinned": lambda _: "no longer pinned",
    "model.ttl_changed": _ttl_changed,
    "model.kept": lambda _: "asked for by a person: comes back after a restart",
    "model.quarantined": _quarantined,
    "model.unquarantined": lambda _: "may be tried again",
    "request.refused": _request_refused,
    "thrash.noticed": _thrash_noticed,
    "memory.pressure": _memory_pressure,
    "memory.residue": _memory_residue,
    "usage.recorded": _usage_recorded,
    "safe_mode.entered": _safe_mode_entered,
    "safe_mode.left": lambda e: f"safe mode is over: {e['reason']}",
    "log.tail_lost": _log_tail_lost,
}
