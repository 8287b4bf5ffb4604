"""Events and logs to test with, made from the event types themselves.

``python -m tests.daemon.eventlog.samples`` writes the fixture of every event version
that has none yet; a fixture that is there is never written again, because it stands for
what some released version wrote.
"""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from daemon.eventlog.disk import Disk
from daemon.eventlog.log import EventLog
from daemon.eventlog.reader import Line
from daemon.eventlog.upcast import current_versions
from daemon.pool.messages import (
    Cause,
    DurableEvent,
    MemoryPressure,
    ModelPinned,
    UsageRecorded,
)

FIXTURES = Path(__file__).parent / "fixtures"
EVENT_TYPES: tuple[type[msgspec.Struct], ...] = get_args(DurableEvent)
EVENTS = Path("/home/events")
START_MS = 1_790_000_000_000


# --- values of any field type ------------------------------------------------------------


def fields_of(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found.fields


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one a kind
    """Any value that a field of this type may have."""
    match kind:
        case inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
        case inspect.UnionType(types=members):
            return st.one_of([values(member) for member in members])
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=3).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*[values(item) for item in items])
        case inspect.StructType(cls=cls):
            return structs(cls)
        case _:
            raise AssertionError(f"say here how to make a {kind}")


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(
        cls, **{field.name: values(field.type) for field in fields_of(cls) if field.name != "v"}
    )


EVENT_VALUES: st.SearchStrategy[Any] = st.one_of([structs(kind) for kind in EVENT_TYPES])
CAUSE_VALUES: st.SearchStrategy[Cause] = structs(Cause)


def example(kind: inspect.Type, name: str) -> Any:
    """One value with nothing left out, the same every time."""
    match kind:
        case inspect.IntType():
            return 1 + sum(name.encode())
        case inspect.FloatType():
            return 1_790_000_000.25
        case inspect.StrType():
            return f"{name} é"
        case inspect.BoolType():
            return True
        case inspect.LiteralType(values=choices):
            return choices[-1]
        case inspect.UnionType(types=members):
            return example(next(m for m in members if not isinstance(m, inspect.NoneType)), name)
        case inspect.VarTupleType(item_type=item):
            return (example(item, name), example(item, f"{name}2"))
        case inspect.TupleType(item_types=items):
            return tuple(example(item, name) for item in items)
        case inspect.StructType(cls=cls):
            return cls(**{f.name: example(f.type, f.name) for f in fields_of(cls)})
        case _:
            raise AssertionError(f"say here how to make a {kind}")


def example_event(kind: type[msgspec.Struct]) -> Any:
    made = {f.name: example(f.type, f.name) for f in fields_of(kind) if f.name != "v"}
    return kind(**made)


# --- logs --------------------------------------------------------------------------------


def chain_by_hand(chain: str, line: bytes) -> str:
    """The formula of DESIGN, with nothing of the code under test."""
    body = line[: line.rindex(b',"chain"')]
    return hashlib.sha256(chain.encode() + body).hexdigest()[:32]


def some_event(number: int) -> DurableEvent:
    match number % 3:
        case 0:
            return MemoryPressure(level="soft")
        case 1:
            return ModelPinned(key=f"/models/{number}", model=f"m{number}")
        case _:
            return UsageRecorded(
                key="k",
                model="é",
                window_ms=60_000,
                requests=number,
                prompt_tokens=5,
                completion_tokens=6,
                busy_ms=7,
                arrivals=((1, 2), (3, 4)),
            )


def grow(log: EventLog, count: int, *, group: int = 1, sync: bool = True) -> list[Line]:
    """Commit ``count`` more records, ``group`` at once."""
    lines: list[Line] = []
    for number in range(count):
        seq = log.position.seq + number % group + 1
        log.append(START_MS + seq, Cause(command="tick", pid=seq), (some_event(seq),))
        if (number + 1) % group == 0 or number + 1 == count:
            lines += log.commit(sync=sync)
    return lines


def build(disk: Disk, folder: Path, count: int, *, segment_bytes_max: int = 1 << 20) -> list[Line]:
    """A closed log of ``count`` records."""
    log, _ = EventLog.open(folder, disk, segment_bytes_max=segment_bytes_max)
    try:
        return grow(log, count)
    finally:
        log.close()


def oversized_event(size_bytes: int) -> DurableEvent:
    return ModelPinned(key="k" * size_bytes, model="m")


def flip_bit(data: bytes, random: Random) -> bytes:
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


# --- fixtures ----------------------------------------------------------------------------


def fixture_of(tag: str, version: int) -> Path:
    return FIXTURES / f"v{version}" / f"{tag}.jsonl"


def write_missing_fixtures() -> list[Path]:
    written = []
    versions = current_versions()
    for kind in EVENT_TYPES:
        tag = str(kind.__struct_config__.tag)
        path = fixture_of(tag, versions[tag])
        if path.exists():
            continue
        record = {
            "seq": 1,
            "at_ms": START_MS,
            "cause": {"command": "tick", "client": "mlxctl", "pid": 812},
            "events": [msgspec.to_builtins(example_event(kind))],
            "prev": "0" * 32,
        }
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        body = text.encode()[:-1]
        seal = hashlib.sha256(b"0" * 32 + body).hexdigest()[:32]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body + f',"chain":"{seal}"}}\n'.encode())
        written.append(path)
    return written


if __name__ == "__main__":
    for path in write_missing_fixtures():
        print(path)
