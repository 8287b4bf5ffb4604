"""The ``--json`` shapes: one documented object a verb, each with its version ``v``.

docs/mlxctl.md describes them. A field is only ever added within a version.
"""

from typing import Any, Final

import msgspec

from daemon.wire import control as c

VERSION: Final = 1
Shape = dict[str, Any]


def status_shape(view: c.StatusView) -> Shape:
    """All of the status: ``models`` and ``queue`` are lists, times are Unix milliseconds."""
    return _of(view)


def models_shape(view: c.ModelsView) -> Shape:
    """What could be loaded, a list under ``models``."""
    return _of(view)


def loaded_shape(answer: c.Loaded) -> Shape:
    """A finished load; ``load_ms`` 0 says that it was loaded already."""
    return _of(answer)


def estimate_shape(answer: c.LoadEstimate) -> Shape:
    """What a load would come to; ``fault`` is null unless it would be refused."""
    return _of(answer)


def unloaded_shape(answer: c.Unloaded) -> Shape:
    """A finished unload."""
    return _of(answer)


def progress_shape(answer: c.Progress) -> Shape:
    """One step of a load, for ``--progress json``."""
    return {"v": VERSION, "progress": _fields(answer)}


def _of(answer: c.Answer) -> Shape:
    return {"v": VERSION, **_fields(answer)}


def _fields(answer: c.Answer) -> Shape:
    fields: Shape = msgspec.to_builtins(answer)
    # How answers find their requests on the wire is nothing that a script should see.
    return {name: value for name, value in fields.items() if name not in {"type", "id"}}
