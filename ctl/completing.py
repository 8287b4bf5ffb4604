"""Shell completion: click's own, with the names of models where a MODEL is wanted."""

from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from ctl.app import App
from ctl.cli import COMPLETING
from daemon.wire import control as c
from daemon.wire.errors import MlxdError

PATIENCE_S: Final = 0.2
"""Whoever pressed Tab waits: after that, what is in the cache has to do."""
_RESIDENT_ONLY: Final = frozenset({"unload", "evict", "ttl"})


class ModelName(click.ParamType[str]):
    """The name of a model, as a text that knows how it could go on."""

    name = "text"

    def convert(self, value: str, param: object, ctx: object) -> str:  # noqa: ARG002 - click's own
        return value

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's own
        incomplete: str,
    ) -> list[CompletionItem]:
        app = ctx.find_object(App)
        assert app is not None
        if incomplete.startswith(("/", "./", "../", "~")):
            return [CompletionItem(incomplete, type="dir")]
        names = model_names(app, resident=ctx.command.name in _RESIDENT_ONLY)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def model_names(app: App, *, resident: bool) -> list[str]:
    """Names to choose from: the daemon's, or those of the cache if it does not say in time."""
    from ctl.quick import ask_briefly  # noqa: PLC0415

    try:
        if resident:
            status = ask_briefly(app, c.GetStatus(id=1), c.StatusView, PATIENCE_S)
            return [model.name for model in status.models]
        known = ask_briefly(app, c.ListModels(id=1), c.ModelsView, PATIENCE_S)
        return [model.name for model in known.models]
    except MlxdError:
        folders = [one for hub in app.home.hub_dirs for one in sorted(hub.glob("models--*"))]
        cached = [one.name.removeprefix("models--").replace("--", "/") for one in folders]
        return [] if resident else cached


def complete(app: App, group: click.Group) -> int:
    """Answer the shell's script that runs this program; the exit code."""
    instruction = app.environ[COMPLETING]
    return shell_complete(group, {"obj": app}, "mlxctl", COMPLETING, instruction)


def script(shell: str, group: click.Group) -> str:
    """What makes ``shell`` ask this program."""
    made = get_completion_class(shell)
    assert made is not None
    return made(group, {}, "mlxctl", COMPLETING).source()


def teach(command: click.Command) -> None:
    """Let the arguments of a verb complete the names of models."""
    for param in command.params:
        if isinstance(param, click.Argument) and param.name == "model":
            param.type = ModelName()
