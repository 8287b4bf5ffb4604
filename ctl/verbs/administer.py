"""``mlxctl safe-mode|config|detach``: what people decide about the daemon itself."""

from typing import Any

import click
import msgspec

from ctl.app import App
from ctl.blocks import Line
from ctl.options import json_option
from daemon.wire import control as c

_SAFE_MODE_EPILOG = """\b
Examples:
  mlxctl safe-mode clear
  mlxctl safe-mode clear --json

After several starts that ended early the daemon neither preloads nor restores models for
ten minutes. 'mlxctl events --type "safe_mode.*"' shows when and why.
"""
_CONFIG_EPILOG = """\b
Examples:
  mlxctl config path
  mlxctl config check                     says line and key of a mistake
  mlxctl config reload
  mlxctl config show --json | jq .settings.pool
"""
_DETACH_EPILOG = """\b
Examples:
  mlxctl detach && mlxd           a new daemon takes over what the old one had
  mlxctl detach --json

Running requests go on. The workers wait ten minutes for the next daemon, then they end.
"""


@click.group("safe-mode", epilog=_SAFE_MODE_EPILOG)
def safe_mode() -> None:
    """Leave the safe mode that follows unclean starts."""


@safe_mode.command("clear")
@json_option
@click.pass_obj
def clear(app: App) -> None:
    """Go back to normal: preloads and restores are allowed again."""
    from ctl.quick import ask  # noqa: PLC0415

    ask(app, c.ClearSafeMode(id=1), c.Ok)
    _tell(app, {"safe_mode": False}, "mlxd is not in safe mode")


@click.group("config", epilog=_CONFIG_EPILOG)
def config() -> None:
    """Look at config.toml, check it, have the daemon read it again."""


@config.command("path")
@json_option
@click.pass_obj
def path(app: App) -> None:
    """Print where config.toml belongs."""
    file = app.home.config_file
    if app.as_json:
        app.show_json({"v": 1, "path": str(file), "exists": file.exists()})
    else:
        app.write(f"{file}\n")


@config.command("check")
@json_option
@click.pass_obj
def check(app: App) -> None:
    """Read config.toml and say whether it is right; the daemon is not asked."""
    from ctl.mlxd import pass_through  # noqa: PLC0415

    code = pass_through(app, "check")
    if code:
        raise click.exceptions.Exit(code)


@config.command("show")
@json_option
@click.pass_obj
def show(app: App) -> None:
    """Print the settings that config.toml gives, defaults included, keys left out."""
    from ctl.settings import settings_shape, settings_text  # noqa: PLC0415
    from daemon.wire.settings import load_settings  # noqa: PLC0415

    file = app.home.config_file
    shape = settings_shape(load_settings(file))
    if app.as_json:
        app.show_json({"v": 1, "path": str(file), "exists": file.exists(), "settings": shape})
    else:
        app.write(settings_text(shape))


@config.command("reload")
@json_option
@click.pass_obj
def reload(app: App) -> None:
    """Have the daemon read config.toml again; a mistake in it changes nothing."""
    from ctl.quick import ask  # noqa: PLC0415

    answer = ask(app, c.ReloadConfig(id=1), c.ConfigReloaded)
    if app.as_json:
        shape: dict[str, Any] = msgspec.to_builtins(answer)
        app.show_json({"v": 1, "keys": shape["keys"], "notes": shape["notes"]})
        return
    changed = f"changed: {', '.join(answer.keys)}" if answer.keys else "nothing has changed"
    app.show(Line(changed), *(Line(f"  {note}", "warn") for note in answer.notes))


@click.command(epilog=_DETACH_EPILOG)
@json_option
@click.pass_obj
def detach(app: App) -> None:
    """End the daemon and leave its models in memory for the next one."""
    from ctl.quick import ask, ask_last  # noqa: PLC0415

    models = [one.name for one in ask(app, c.GetStatus(id=1), c.StatusView).models]
    ask_last(app, c.DetachDaemon(id=1))
    kept = f"these stay in memory: {', '.join(models)}" if models else "no model was in memory"
    _tell(app, {"detached": True, "models": models}, f"mlxd has ended; {kept}")


def _tell(app: App, shape: dict[str, object], text: str) -> None:
    if app.as_json:
        app.show_json({"v": 1, **shape})
    else:
        app.show(Line(text))
