"""What people may write where a verb takes a MODEL: a name, or its folder."""

import os
from pathlib import Path

from ctl.app import App
from daemon.wire import control as c
from daemon.wire.errors import Code, MlxdError


def looks_like_folder(model: str) -> bool:
    """Whether MODEL is meant as a folder: names never begin like this."""
    return model in {".", "..", "~"} or model.startswith(("/", "./", "../", "~/"))


def named(app: App, model: str) -> str:
    """The name that the daemon knows MODEL by: itself, or the one of its folder.

    Raises:
        MlxdError: ``not_found`` if no known model lies in that folder.
    """
    if not looks_like_folder(model):
        return model
    from ctl.quick import ask  # noqa: PLC0415 - most models are named by name

    found = of_folder(model, ask(app, c.ListModels(id=1), c.ModelsView).models)
    if found is None:
        raise MlxdError(
            Code.NOT_FOUND,
            f"no model is known by the folder {model}",
            hint="mlxctl models --json lists the folders of all models",
            field="model",
        )
    return found.name


def of_folder(model: str, known: tuple[c.KnownModel, ...]) -> c.KnownModel | None:
    """The known model that lies in the folder ``model``, by its real path."""
    place = os.path.realpath(Path(model).expanduser())
    lying = (one for one in known if one.path and os.path.realpath(one.path) == place)
    return next(lying, None)
