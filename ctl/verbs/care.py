"""``mlxctl evict|pin|unpin|ttl|unquarantine``: what people decide about one model."""

import click

from ctl.app import App
from ctl.blocks import Line
from ctl.naming import named
from ctl.options import IDLE_TIME, Never, json_option
from daemon.wire import control as c
from daemon.wire.units import format_duration_ms

_EVICT_EPILOG = """\b
Examples:
  mlxctl evict mlxd/glimpse
  mlxctl evict mlxd/glimpse --json

As 'unload', but by the pool's own rules: a pinned model stays, and says so with exit code 6.
"""
_PIN_EPILOG = """\b
Examples:
  mlxctl pin mlxd/glimpse
  mlxctl pin ./my-model --json

The model need not be in memory: the pin holds from its next load on, and across restarts.
"""
_UNPIN_EPILOG = """\b
Examples:
  mlxctl unpin mlxd/glimpse
  mlxctl unpin mlxd/glimpse --json

It stays in memory until its TTL ends or its room is needed.
"""
_TTL_EPILOG = """\b
Examples:
  mlxctl ttl mlxd/glimpse 10m
  mlxctl ttl mlxd/glimpse never
  mlxctl ttl mlxd/glimpse 90s --json

The model must be in memory. The time counts from its last use; "never" keeps it until it is
unloaded or its room is needed. Its next load takes the configured time again. A pinned
model stays whatever its TTL is.
"""
_UNQUARANTINE_EPILOG = """\b
Examples:
  mlxctl unquarantine mlxd/glimpse
  mlxctl unquarantine mlxd/glimpse --json

A model that crashed too often is not tried again until its files change, or until this.
'mlxctl why MODEL' tells what happened to it.
"""


@click.command(epilog=_EVICT_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def evict(app: App, model: str) -> None:
    """Take MODEL out of memory as the pool would: not if pinned or in use."""
    from ctl.connect import talk  # noqa: PLC0415
    from ctl.render import evicted_line  # noqa: PLC0415
    from ctl.shapes import unloaded_shape  # noqa: PLC0415

    name = named(app, model)
    answer = talk(app, lambda control: control.evict(name))
    if app.as_json:
        app.show_json(unloaded_shape(answer))
    else:
        app.show(evicted_line(answer))


@click.command(epilog=_PIN_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def pin(app: App, model: str) -> None:
    """Keep MODEL in memory: never evicted, never expired."""
    name = named(app, model)
    _ask(app, c.PinModel(id=1, model=name))
    _tell(app, f"{name} is pinned: never evicted, never expired", model=name, pinned=True)


@click.command(epilog=_UNPIN_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def unpin(app: App, model: str) -> None:
    """Let MODEL expire and be evicted again."""
    name = named(app, model)
    _ask(app, c.UnpinModel(id=1, model=name))
    _tell(app, f"{name} is not pinned", model=name, pinned=False)


@click.command(epilog=_TTL_EPILOG)
@click.argument("model")
@click.argument("idle", metavar="TIME", type=IDLE_TIME)
@json_option
@click.pass_obj
def ttl(app: App, model: str, idle: float | Never) -> None:
    """Unload MODEL after TIME without use, or "never"."""
    name = named(app, model)
    ttl_s = None if isinstance(idle, Never) else idle
    _ask(app, c.SetTtl(id=1, model=name, ttl_s=ttl_s))
    if ttl_s is None:
        text = f"{name} stays until it is unloaded or its room is needed"
    else:
        text = f"{name} is unloaded after {format_duration_ms(round(ttl_s * 1000))} without use"
        if not app.as_json and _is_pinned(app, name):
            rest = text.replace(name, "it", 1)
            text = f"{name} is pinned, so it stays; unpinned, {rest}"
    _tell(app, text, model=name, ttl_s=ttl_s)


@click.command(epilog=_UNQUARANTINE_EPILOG)
@click.argument("model")
@json_option
@click.pass_obj
def unquarantine(app: App, model: str) -> None:
    """Let MODEL be tried again after it failed too often."""
    name = named(app, model)
    if _ask(app, c.UnquarantineModel(id=1, model=name)).already:
        text = f"nothing held {name} back: it was not quarantined"
    else:
        text = f"{name} may be loaded again"
    _tell(app, text, model=name, quarantined=False)


def _ask(app: App, request: c.ControlRequest) -> c.Ok:
    from ctl.quick import ask  # noqa: PLC0415

    return ask(app, request, c.Ok)


def _is_pinned(app: App, name: str) -> bool:
    from ctl.quick import ask  # noqa: PLC0415

    models = ask(app, c.GetStatus(id=1), c.StatusView).models
    return any(model.pinned for model in models if model.name == name)


def _tell(app: App, text: str, **facts: object) -> None:
    if app.as_json:
        app.show_json({"v": 1, **facts})
    else:
        app.show(Line(text))
