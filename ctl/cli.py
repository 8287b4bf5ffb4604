"""The verbs of mlxctl, each imported only when it is asked for."""

import difflib
from importlib import import_module
from typing import Final

import click

from ctl.app import INTERRUPTED_EXIT, App
from daemon.wire.errors import HANDLING, Code, Fault, MlxdError

VERBS: Final[dict[str, str]] = {
    "status": "ctl.verbs.status:status",
    "ps": "ctl.verbs.status:status",
    "top": "ctl.verbs.top:top",
    "models": "ctl.verbs.models:models",
    "pull": "ctl.verbs.pull:pull",
    "rm": "ctl.verbs.rm:rm",
    "load": "ctl.verbs.load:load",
    "unload": "ctl.verbs.load:unload",
    "evict": "ctl.verbs.care:evict",
    "pin": "ctl.verbs.care:pin",
    "unpin": "ctl.verbs.care:unpin",
    "ttl": "ctl.verbs.care:ttl",
    "run": "ctl.verbs.run:run",
    "why": "ctl.verbs.why:why",
    "events": "ctl.verbs.events:events",
    "usage": "ctl.verbs.usage:usage",
    "simulate": "ctl.verbs.simulate:simulate",
    "unquarantine": "ctl.verbs.care:unquarantine",
    "service": "ctl.verbs.service:service",
    "safe-mode": "ctl.verbs.administer:safe_mode",
    "config": "ctl.verbs.administer:config",
    "log": "ctl.verbs.log:log",
    "logs": "ctl.verbs.logs:logs",
    "detach": "ctl.verbs.administer:detach",
    "bench": "ctl.verbs.bench:bench",
    "doctor": "ctl.verbs.doctor:doctor",
    "completion": "ctl.verbs.completion:completion",
    "version": "ctl.verbs.version:version",
}
"""Verb -> module and command. A new verb is a file under ``verbs/`` and a line here."""

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "The pool": {
        "status": "what is loaded, what it takes, who waits (also: ps)",
        "top": "the same live, with keys to act on it",
        "load": "load a model and wait until it is ready",
        "unload": "take a model out of memory",
        "evict": "the same, but never a pinned one",
        "pin": "keep a model in memory",
        "unpin": "let it expire and be evicted again",
        "ttl": "unload a model after so long without use",
        "unquarantine": "let a model that failed too often be tried again",
    },
    "Models": {
        "models": "what is on disk, what it can do, whether it fits",
        "pull": "get a model from the Hugging Face hub",
        "rm": "remove a model from the disk",
        "run": "ask a model, or chat with it",
        "bench": "how fast a model answers here",
    },
    "What happened": {
        "why": "why a model is in memory, or why it is not",
        "events": "what happened, and what caused it",
        "usage": "requests, tokens and busy time",
        "simulate": "your own demand under other rules",
        "log": "check, repair or copy the event log",
        "logs": "what the programs themselves have logged",
    },
    "The service": {
        "service": "run mlxd and mlx-bridge from login on",
        "doctor": "is everything as it should be, and if not, what to do",
        "config": "look at config.toml, check it, apply it",
        "detach": "end the daemon, leave its models for the next one",
        "safe-mode": "back to normal after unclean starts",
        "completion": "the completion script for a shell",
        "version": "of mlxctl, and of the daemon if one runs",
    },
}
"""The help, in the order of use. Here, so that it is shown without importing every verb."""

USAGE_EXIT: Final = 2
COMPLETING: Final = "_MLXCTL_COMPLETE"
"""Set where a shell wants to know how a line could go on."""

_HELP = """mlxctl: control the mlxd model service.

\b
Examples:
  mlxctl status                 what is loaded, and what it takes
  mlxctl models                 what is on disk, and whether it fits
  mlxctl run mlxd/glimpse       chat with the bundled model
  mlxctl run mlxd/glimpse "What is in this picture?" --image photo.png
  mlxctl events -f              what happens and why, live

Exit codes and the --json shapes are documented in docs/mlxctl.md.
"""


class Verbs(click.Group):
    """A group whose commands are imported on demand, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return [verb for verb in VERBS if verb != "ps"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        app = ctx.find_object(App)
        if app is not None and COMPLETING in app.environ:
            from ctl.completing import teach  # noqa: PLC0415

            teach(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()), col_max=14)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, 1, 0.7)
            guess = f"; did you mean 'mlxctl {near[0]}'?" if near else ""
            raise click.UsageError(f"there is no verb '{args[0]}'{guess}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Verbs,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def mlxctl() -> None:
    """Every verb stands alone: there is nothing to prepare."""


def run(app: App, arguments: list[str]) -> int:
    """Run one command line and report what goes wrong.

    Returns:
        The exit code: 0, 2 for usage, 130 for Ctrl-C, else the one of the failure's code.

    Raises:
        BrokenPipeError: Whoever read stdout went away.
    """
    if COMPLETING in app.environ:
        from ctl.completing import complete  # noqa: PLC0415

        return complete(app, mlxctl)
    try:
        # Not Command.main(): it ends the process itself when a reader goes away.
        with mlxctl.make_context("mlxctl", arguments, obj=app) as context:
            mlxctl.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        app.note(error.format_message())
        return USAGE_EXIT
    except click.UsageError as error:
        app.fail(_usage_fault(error))
        return USAGE_EXIT
    except click.ClickException as error:
        app.fail(Fault(code=Code.INVALID_REQUEST, message=error.format_message()))
        return USAGE_EXIT
    except MlxdError as error:
        app.fail(error.fault)
        return HANDLING[error.code].exit_code
    except (KeyboardInterrupt, click.Abort):
        if app.err_is_terminal:
            app.note("")  # the terminal has just shown "^C"
        app.fail(Fault(code=Code.CANCELLED, message="interrupted; what it asked for is withdrawn"))
        return INTERRUPTED_EXIT
    return 0


def _usage_fault(error: click.UsageError) -> Fault:
    path = error.ctx.command_path if error.ctx else "mlxctl"
    message = error.format_message()
    return Fault(
        code=Code.INVALID_REQUEST,
        message=message[:1].lower() + message[1:].removesuffix("."),
        hint=f"{path} --help shows the usage",
    )
