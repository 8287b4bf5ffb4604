"""The ``--json`` shapes: one documented object a verb, each with its version ``v``.

docs/mlxctl.md describes them.
"""

from typing import Any

from daemon.wire import control as c
from daemon.wire.shapes import VERSION, fields, versioned

Shape = dict[str, Any]


def status_shape(view: c.StatusView) -> Shape:
    """All of the status: ``models`` and ``queue`` are lists, times are Unix milliseconds."""
    return versioned(view)


def models_shape(view: c.ModelsView) -> Shape:
    """What could be loaded, a list under ``models``."""
    return versioned(view)


def loaded_shape(answer: c.Loaded) -> Shape:
    """A finished load; ``load_ms`` 0 says that it was loaded already."""
    return versioned(answer)


def estimate_shape(answer: c.LoadEstimate) -> Shape:
    """What a load would come to; ``fault`` is null unless it would be refused."""
    return versioned(answer)


def unloaded_shape(answer: c.Unloaded) -> Shape:
    """A finished unload."""
    return versioned(answer)


def progress_shape(answer: c.Progress) -> Shape:
    """One step of a load, for ``--progress json``."""
    return {"v": VERSION, "progress": fields(answer)}
