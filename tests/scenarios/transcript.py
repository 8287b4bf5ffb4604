"""Stories about the pool: commands in, and every event and effect that must follow.

A file has a title, its models and limits, then commands (``> acquire 1 A``), each
followed by all that it gives: events by their tags, effects after ``=>``. ``@ 30s`` lets
so much time pass, with a tick whenever the pool says that something is due, as the kernel
does. ``# …`` is for the reader. What comes out is compared as a whole, so that an event
that the story does not name fails it. At the end of each story its durable events, through
JSON and replayed, must give the durable part of the live pool.

``UPDATE_SCENARIOS=1 pytest tests/scenarios`` writes what comes out into the files, for
review with ``git diff``.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from daemon.pool import messages as m
from daemon.pool.decide import decide, next_due_ms
from daemon.pool.evolve import evolve
from daemon.pool.react import react
from daemon.pool.state import Pool
from daemon.wire.errors import Fault
from daemon.wire.units import format_bytes, parse_bytes, parse_duration_s
from tests.daemon.pool.durable import durable_part
from tests.scenarios.vocabulary import Words, command_of

START_MS: Final = 1_000_000_000
_LEFT_OUT: Final = {
    "v", "key", "pid", "start_time", "boot_id", "version", "memory_total_bytes",
    "context_tokens", "window_ms", "kv_tokens", "rows_max", "generation",
}  # fmt: skip


class Story:
    """A pool, its virtual time, and the log of what became durable."""

    def __init__(self) -> None:
        self.pool = Pool(limits=m.Limits(budget_bytes=10**10))
        self.options: dict[str, m.Option] = {}
        self.now_ms = START_MS
        self.log: list[tuple[int, bytes]] = []

    def setting(self, words: Words) -> bool:
        """Take a line that sets the scene; False if it is none."""
        match words.verb:
            case "budget":
                self._limit(budget_bytes=parse_bytes(words.rest[0]))
            case "limit":
                self._limit(**{k: msgspec.json.decode(v) for k, v in words.named.items()})
            case "model":
                self._model(words)
            case _:
                return False
        return True

    def _limit(self, **changed: int) -> None:
        limits = msgspec.structs.replace(self.pool.limits, **changed)
        self.pool = msgspec.structs.replace(self.pool, limits=limits)

    def _model(self, words: Words) -> None:
        name, size = words.rest
        model = m.Model(
            key=f"/{name}",
            name=name,
            path=f"/{name}",
            kind="text",
            capabilities=("text",),
            weights_bytes=parse_bytes(size),
            kv_token_bytes=int(words.named.get("kv", "0")),
            context_tokens=8192,
            identity=words.named.get("files", "1"),
        )
        ttl = words.named.get("ttl")
        ttl_ms = None if ttl is None else int(parse_duration_s(ttl) * 1000)
        terms = m.Terms(ttl_ms=ttl_ms, pin="pin" in words.flags)
        self.options[name] = m.Option(model=model, terms=terms)

    def told(self, words: Words) -> Iterator[str]:
        """All that follows from one command line."""
        match words.verb:
            case "resident":
                for name in words.rest:
                    self._make_resident(name)
            case "restart":
                yield from self._restart(words)
            case "slept":
                self.now_ms += int(parse_duration_s(words.rest[0]) * 1000)
                yield from self.decided(command_of(words, self.options, self.pool, self.now_ms))
            case _:
                yield from self.decided(command_of(words, self.options, self.pool, self.now_ms))

    def _make_resident(self, name: str) -> None:
        """Load it as `mlxctl load` would, long enough ago that nothing protects it."""
        option = self.options[name]
        worker = f"w{self.pool.workers_started + 1}"
        ready = m.ReportReady(
            worker=worker,
            measured_bytes=option.model.weights_bytes,
            load_ms=3_000,
            context_tokens=8192,
        )
        load = m.Load(ticket=0, client="mlxctl", options=(option,))
        for command in (load, ready):
            list(self.decided(command))
        self.now_ms += 20_000

    def _restart(self, words: Words) -> Iterator[str]:
        """The daemon is gone; another begins with what the log holds."""
        self.pool = self.replayed()
        self.now_ms += 1_000
        start = m.Start(
            pid=1,
            boot_id=words.named.get("boot", "b1"),
            version="1",
            budget_bytes=self.pool.limits.budget_bytes,
            memory_total_bytes=2 * self.pool.limits.budget_bytes,
        )
        yield from self.decided(start)

    def passed(self, for_ms: int) -> Iterator[str]:
        """What time brings."""
        until_ms = self.now_ms + for_ms
        while (due_ms := next_due_ms(self.pool, self.now_ms)) is not None and due_ms <= until_ms:
            assert due_ms > self.now_ms, "a tick that comes at once, again and again"
            waited_s = (due_ms - until_ms + for_ms) / 1000
            self.now_ms = due_ms
            lines = list(self.decided(m.Tick()))
            if lines:
                yield f"after {waited_s:g}s"
                yield from lines
        self.now_ms = until_ms

    def decided(self, command: m.AnyCommand) -> Iterator[str]:
        for event in decide(self.pool, command, self.now_ms).events:
            self.pool = evolve(self.pool, event, self.now_ms)
            if isinstance(event, m.Durable):
                self.log.append((self.now_ms, msgspec.json.encode(event)))
            yield _line(event)
            for effect in react(self.pool, event):
                if not isinstance(effect, m.AnswerProgress):
                    yield f"  => {_effect(effect)}"

    def replayed(self) -> Pool:
        pool = Pool(limits=self.pool.limits)
        for at_ms, line in self.log:
            event: m.DurableEvent = msgspec.json.decode(line, type=m.DurableEvent)
            pool = evolve(pool, event, at_ms)
        return pool


def perform(text: str) -> str:
    """The story as it comes out: its own commands, with what really follows from them."""
    story = Story()
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith((">", "@")):
            if line.startswith("@"):
                follows = story.passed(int(parse_duration_s(line[1:].strip()) * 1000))
            else:
                follows = story.told(Words.of(line[1:]))
            out += [line, *(f"    {told}" for told in follows)]
        elif not line.startswith(" "):
            if line and not line.startswith("#") and not story.setting(Words.of(line)):
                raise ValueError(f"not understood: {line}")
            out.append(line)
    assert durable_part(story.replayed()) == durable_part(story.pool), (
        "replay differs from the live pool"
    )
    return "\n".join(out) + "\n"


# --- one line an event --------------------------------------------------------------


def _line(event: m.Event) -> str:
    return f"{event.__struct_config__.tag} {' '.join(_fields(event))}".rstrip()


def _effect(effect: m.AnyEffect) -> str:
    tag = str(effect.__struct_config__.tag)
    match effect:
        case m.SpawnWorker() | m.BeginLoad():
            return f"{tag} {effect.worker} {effect.model.name}{' yields' if effect.yields else ''}"
        case m.AnswerRefused():
            return f"{tag} #{effect.ticket} {effect.fault.code.value}"
        case _:
            return f"{tag} {' '.join(_fields(effect))}".rstrip()


def _fields(struct: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if field.name not in _LEFT_OUT and value != field.default:
            yield _field(field.name, value)


def _field(name: str, value: Any) -> str:
    if name == "ticket":
        return f"#{value}"
    if name in ("worker", "model", "lease") and isinstance(value, str):
        return value or "-"
    return f"{name.removesuffix('_bytes').removesuffix('_ms')}={_value(name, value)}"


def _value(name: str, value: Any) -> str:  # noqa: C901, PLR0911, PLR0912 - one a kind
    match value:
        case m.Model():
            return value.name
        case m.Option():
            return value.model.name
        case m.Waiter():
            return f"#{value.ticket}:{value.option.model.name}"
        case m.Wish():
            return value.option.model.name
        case m.Limits():
            return format_bytes(value.budget_bytes).replace(" ", "")
        case m.Candidate():
            size = format_bytes(value.claim_bytes).replace(" ", "")
            used_s = (value.last_used_at_ms - START_MS) / 1000
            return f"{value.model} {size} used @{used_s:g}s: {value.why_not or 'may go'}"
        case m.PassedOver():
            return f"{value.model}:{value.why}"
        case m.Waits():
            total_s, longest_s = value.total_ms / 1000, value.longest_ms / 1000
            return f"{value.requests}:{total_s:g}s,{longest_s:g}s" if value.requests else "none"
        case Fault():
            after = (
                "" if value.retry_after_ms is None else f" retry={value.retry_after_ms / 1000:g}s"
            )
            hint = "" if value.hint is None else f" hint={value.hint!r}"
            return f"{value.code.value}{after} {value.message!r}{hint}"
        case m.RequestRefused():
            return f"{value.code} {value.model}"
        case tuple():
            return f"[{', '.join(_value(name, item) for item in value)}]"
        case int() if name.endswith("_bytes"):
            return format_bytes(value).replace(" ", "")
        case int() if name.endswith("_at_ms"):
            return f"@{(value - START_MS) / 1000:g}s"
        case int() if name.endswith("_ms") and not isinstance(value, bool):
            return f"{value / 1000:g}s"
        case str() if " " in value:
            return repr(value)
        case _:
            return str(value)
