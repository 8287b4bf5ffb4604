"""Old events become what this version understands, before anything is decoded strictly.

A changed meaning takes a new ``v`` and one pure function here, from the old version to
the next; the fixtures under ``tests/daemon/eventlog/fixtures`` hold every version that
was ever written.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import msgspec

from daemon.pool.messages import DurableEvent

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
Upcasters = Mapping[tuple[str, int], Upcaster]

UPCASTERS: Final[Upcasters] = {}
"""(type, version it was written in) -> the same event one version later."""


def current_versions(union: Any = DurableEvent) -> dict[str, int]:
    """The version that this program writes, of each event type in ``union``."""
    versions: dict[str, int] = {}
    for member in get_args(union):
        (field,) = (field for field in msgspec.structs.fields(member) if field.name == "v")
        tag = member.__struct_config__.tag
        assert isinstance(tag, str)
        assert isinstance(field.default, int)
        assert tag not in versions, f"two events are called {tag}"
        versions[tag] = field.default
    return versions


def upcast(
    event: dict[str, Any], current: Mapping[str, int], upcasters: Upcasters
) -> dict[str, Any]:
    """``event`` in the version that this program writes.

    Raises:
        ValueError: The type is unknown, the version is newer than this program's, or
            no upcaster leads on from it.
    """
    while True:
        kind, version = event.get("type"), event.get("v")
        if not isinstance(kind, str) or not isinstance(version, int):
            raise ValueError("an event without a type and a version")  # noqa: TRY004
        step = upcasters.get((kind, version))
        if step is None:
            break
        after = step(event)
        if (after.get("type"), after.get("v")) == (kind, version):
            raise ValueError(f"the upcaster of {kind} version {version} leads nowhere")
        event = after
    if kind not in current:
        raise ValueError(f"unknown event {kind!r}")
    if version != current[kind]:
        raise ValueError(f"{kind} version {version}, and only {current[kind]} is known")
    return event
