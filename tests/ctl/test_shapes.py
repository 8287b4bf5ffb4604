"""The documented JSON says nothing of the wire's own business."""

from ctl.shapes import (
    loaded_shape,
    models_shape,
    progress_shape,
    status_shape,
    unloaded_shape,
)
from daemon.wire import control as c
from tests.ctl.views import known, status


def test_every_shape_has_its_version_first_and_no_wire_fields() -> None:
    shapes = [
        status_shape(status()),
        models_shape(c.ModelsView(id=1, models=(known(),))),
        loaded_shape(c.Loaded(id=1, model="m", worker="w", load_ms=0, measured_bytes=1)),
        unloaded_shape(c.Unloaded(id=1, model="m", freed_bytes=1)),
        progress_shape(c.Progress(id=1, model="m", phase="queued")),
    ]
    for shape in shapes:
        assert next(iter(shape)) == "v"
        assert shape["v"] == 1
        assert not {"type", "id"} & (shape.keys() | shape.get("progress", {}).keys())
