"""``mlxctl load`` and ``mlxctl unload``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from ctl.app import App
from ctl.naming import looks_like_folder, named
from ctl.options import DURATION, IDLE_TIME, Never, json_option, milliseconds
from ctl.progress import MODES, Mode, shown_progress
from daemon.wire import control as c
from daemon.wire.errors import HANDLING, Code, MlxdError
from daemon.wire.framing import checked_utf8

if TYPE_CHECKING:
    from daemon.wire.client import Control

_LOAD_EPILOG = """\b
Examples:
  mlxctl load mlxd/glimpse
  mlxctl load mlxd/glimpse --ttl 10m     or "--ttl never"
  mlxctl load ./my-model                 registered as "my-model"
  mlxctl load ./my-model --name tuned --pin
  mlxctl load big-model --timeout 5m --progress json --json
  mlxctl load big-model --estimate       the arithmetic, and what would happen

MODEL is a name from 'mlxctl models', or a folder if it begins with "/", "./", "../" or "~".
Ctrl-C withdraws the request; a load that nobody else waits for ends with it.
--estimate changes nothing, and ends with the exit code that the load would be refused with.
"""

_UNLOAD_EPILOG = """\b
Example:
  mlxctl unload mlxd/glimpse

A model that is in use is not unloaded: the answer says who uses it, with exit code 6.
"""


class Target(msgspec.Struct, frozen=True):
    """What to load: a name, and a folder if it is to be registered under that name."""

    name: str
    path: str | None = None


def target_of(model: str, path: str | None, name: str | None, folder: Path) -> Target:
    """What the arguments of ``load`` mean.

    Args:
        model: MODEL as given: a name, or a folder by its first characters.
        path: ``--path``, if given.
        name: ``--name``, if given.
        folder: Where relative folders begin.

    Raises:
        click.UsageError: The arguments contradict each other.
        MlxdError: ``not_found`` if the folder does not exist; ``invalid_request`` if it needs
            another name than its own, or its path is not UTF-8.
    """
    if not looks_like_folder(model):
        if name is not None:
            raise click.UsageError("--name goes with a folder; MODEL is a name already")
        return Target(model, _existing(path, folder) if path is not None else None)
    if path is not None:
        raise click.UsageError("MODEL is a folder already; give a name before --path")
    place = _existing(model, folder)
    return Target(name or _own_name(place), place)


def _own_name(place: str) -> str:
    """The name of the folder ``place``, if a model can have it."""
    from daemon.wire.settings import name_problem  # noqa: PLC0415 - only folders need it

    name = Path(place).name
    if problem := name_problem(name):
        hint = "give it a name of its own: mlxctl load FOLDER --name NAME"
        raise MlxdError(Code.INVALID_REQUEST, problem, hint=hint, field="model")
    return name


def _existing(given: str, folder: Path) -> str:
    # Not resolve(): the daemon reads the real path, and people know theirs.
    place = Path(os.path.normpath(folder / Path(given).expanduser()))
    if not place.is_dir():
        raise MlxdError(
            Code.NOT_FOUND,
            f"there is no folder {place}",
            hint="give the folder that holds the model's config.json",
            field="path",
        )
    return checked_utf8(str(place))


@click.command(epilog=_LOAD_EPILOG)
@click.argument("model")
@click.option("--path", metavar="FOLDER", help="Register FOLDER under the name MODEL and load it.")
@click.option("--name", help="The name for MODEL if it is a folder.  [default: folder's name]")
@click.option(
    "--ttl", type=IDLE_TIME, help='Unload after this much idle time, e.g. 10m; or "never".'
)
@click.option("--pin", is_flag=True, help="Never evict it, never let it expire.")
@click.option("--over-budget", is_flag=True, help="Load even if the memory budget says no.")
@click.option("--estimate", is_flag=True, help="Say what it would take, and load nothing.")
@click.option("--timeout", type=DURATION, help="Give up after this time, e.g. 2m.")
@click.option(
    "--progress", type=click.Choice(MODES), default="auto", help="How to show it on stderr."
)
@json_option
@click.pass_obj
def load(  # noqa: PLR0913, PLR0917 - one an option
    app: App,
    model: str,
    path: str | None,
    name: str | None,
    ttl: float | Never | None,
    pin: bool,
    over_budget: bool,
    estimate: bool,
    timeout: float | None,
    progress: Mode,
) -> None:
    """Load MODEL and wait until it is ready."""
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.render import loaded_line  # noqa: PLC0415
    from ctl.shapes import loaded_shape  # noqa: PLC0415

    target = target_of(model, path, name, Path.cwd())
    if estimate:
        _estimate(app, target, over_budget=over_budget)
        return

    async def ask(control: "Control") -> c.Loaded:
        return await control.load(
            target.name,
            path=target.path,
            ttl_s="never" if isinstance(ttl, Never) else ttl,
            pin=pin,
            over_budget=over_budget,
            deadline_ms=milliseconds(timeout),
            on_progress=on_progress,
        )

    with shown_progress(app, progress) as on_progress:
        try:
            answer = talk(app, ask)
        except MlxdError as error:
            raise _with_folder_hint(error, target, Path.cwd()) from error
    if app.as_json:
        app.show_json(loaded_shape(answer))
    else:
        app.show(loaded_line(answer))


def _estimate(app: App, target: Target, *, over_budget: bool) -> None:
    from ctl.estimate import estimate_page  # noqa: PLC0415
    from ctl.quick import ask  # noqa: PLC0415
    from ctl.shapes import estimate_shape  # noqa: PLC0415

    request = c.EstimateLoad(id=1, model=target.name, path=target.path, over_budget=over_budget)
    try:
        told = ask(app, request, c.LoadEstimate)
    except MlxdError as error:
        raise _with_folder_hint(error, target, Path.cwd()) from error
    if app.as_json:
        app.show_json(estimate_shape(told))
    else:
        app.show(*estimate_page(told))
    if told.fault is not None:
        click.get_current_context().exit(HANDLING[told.fault.code].exit_code)


def _with_folder_hint(error: MlxdError, target: Target, folder: Path) -> MlxdError:
    """An unknown name that is also a folder here was probably meant as one."""
    if error.code is Code.NOT_FOUND and target.path is None and (folder / target.name).is_dir():
        hint = f"to load the folder of that name: mlxctl load ./{target.name}"
        return MlxdError(error.code, error.fault.message, hint=hint, field=error.fault.field)
    return error


@click.command(epilog=_UNLOAD_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def unload(app: App, model: str) -> None:
    """Unload MODEL and wait until its memory is free."""
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.render import unloaded_line  # noqa: PLC0415
    from ctl.shapes import unloaded_shape  # noqa: PLC0415

    name = named(app, model)
    answer = talk(app, lambda control: control.unload(name))
    if app.as_json:
        app.show_json(unloaded_shape(answer))
    else:
        app.show(unloaded_line(answer))
