"""``mlxctl service``: mlxd and mlx-bridge as services of this user's launchd or systemd."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctl.app import App
from ctl.blocks import Line
from ctl.options import json_option
from daemon.wire.errors import MlxdError

if TYPE_CHECKING:
    from launchd.service import Service
    from launchd.steps import Step

_EPILOG = """\b
Examples:
  mlxctl service install               start now, and at every login
  mlxctl service install --dry-run     only show what would be written and run
  mlxctl service status --json
  mlxctl service restart               after an upgrade; models stay in memory
  mlxctl service uninstall             keeps settings and all logs

Models of the Hugging Face cache are never removed. docs/service.md has the details.
"""
_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be written and run.")


@click.group("service", epilog=_EPILOG)
def service() -> None:
    """Run mlxd and mlx-bridge in the background, from login on."""


@service.command("install")
@_dry_run
@json_option
@click.pass_obj
def install(app: App, dry_run: bool) -> None:
    """Write the service's files and start it; where it is installed, bring it up to date.

    Models that are in memory stay there.
    """
    _do(app, lambda found: found.install(), dry_run, keep_models=True)


@service.command("uninstall")
@click.option("--purge", is_flag=True, help="Also remove config.toml, event log, logs and caches.")
@click.option("--yes", is_flag=True, help="Do not ask before purging.")
@_dry_run
@json_option
@click.pass_obj
def uninstall(app: App, purge: bool, yes: bool, dry_run: bool) -> None:
    """End both programs and remove the service's files."""
    if purge and not yes and not dry_run:
        click.confirm(f"Remove the event log and all settings under {app.home.root}?", abort=True)
    _do(app, lambda found: found.uninstall(purge=purge), dry_run, removed=True)
    if not purge and not dry_run and not app.as_json:
        app.show(Line("Kept: config.toml, the event log and the logs; --purge removes them, too."))


@service.command("start")
@_dry_run
@json_option
@click.pass_obj
def start(app: App, dry_run: bool) -> None:
    """Start what is installed; a daemon that was started by hand hands its models over."""
    _do(app, lambda found: found.start(), dry_run, keep_models=True)


@service.command("stop")
@_dry_run
@json_option
@click.pass_obj
def stop(app: App, dry_run: bool) -> None:
    """End both programs until the next start or login; models leave memory."""
    _do(app, lambda found: found.stop(), dry_run)


@service.command("restart")
@_dry_run
@json_option
@click.pass_obj
def restart(app: App, dry_run: bool) -> None:
    """Start both programs anew, as after an upgrade; models stay in memory."""
    _do(app, lambda found: found.restart(), dry_run, keep_models=True)


@service.command("enable")
@_dry_run
@json_option
@click.pass_obj
def enable(app: App, dry_run: bool) -> None:
    """Start at every login."""
    _do(app, lambda found: found.enable(), dry_run)


@service.command("disable")
@_dry_run
@json_option
@click.pass_obj
def disable(app: App, dry_run: bool) -> None:
    """Do not start at login; what runs goes on."""
    _do(app, lambda found: found.disable(), dry_run)


@service.command("status")
@json_option
@click.pass_obj
def status(app: App) -> None:
    """Whether it is installed, enabled, loaded and running, and what to do where it is not."""
    _show_state(app, find_service(app))
    if problem := _config_problem(app):
        app.note(f"mlxctl: {problem}")


def _do(
    app: App,
    plan: "Callable[[Service], Sequence[Step]]",
    dry_run: bool,
    *,
    keep_models: bool = False,
    removed: bool = False,
) -> None:
    from launchd.steps import carry_out, told  # noqa: PLC0415

    if keep_models and (problem := _config_problem(app)):  # it would not start again
        raise problem
    found = find_service(app)
    if dry_run:
        _show_plan(app, plan(found))
        return
    found.check()
    with _handing_over(app) if keep_models else nullcontext():
        for step in plan(found):
            app.note_dim(f"{told(step)}\n")
            carry_out((step,), found.run)
    if removed and not app.as_json:
        app.show(Line("mlxd and mlx-bridge are no services any more."))
    else:
        _show_state(app, found)


def _handing_over(app: App) -> AbstractContextManager[None]:
    """For the length of the block, a daemon that is told to end leaves its models in memory."""
    from daemon.wire.locks import held  # noqa: PLC0415
    from daemon.wire.paths import make_private  # noqa: PLC0415

    make_private(app.home.run_dir)
    return held(app.home.handover_mark, wait=True)


def find_service(app: App) -> "Service":
    """mlxd on this home, as the service manager of this machine would run it.

    Raises:
        MlxdError: ``conflict`` where there is no service manager.
    """
    import shutil  # noqa: PLC0415

    from daemon.wire.settings import load_settings  # noqa: PLC0415
    from launchd.local import this_service  # noqa: PLC0415
    from launchd.steps import run_program  # noqa: PLC0415

    def which(program: str) -> str | None:
        return shutil.which(program, path=app.environ.get("PATH"))

    # A service can be looked at and removed, whatever somebody has written into config.toml.
    http = None if _config_problem(app) else load_settings(app.home.config_file).http
    python = Path(sys.executable)
    return this_service(app.home, http, app.environ, python, which, run_program)


def _config_problem(app: App) -> MlxdError | None:
    """Why the programs would not start as services with config.toml as it is."""
    from daemon.wire.settings import load_settings  # noqa: PLC0415
    from launchd.agents import check_port  # noqa: PLC0415

    try:
        check_port(load_settings(app.home.config_file).http)
    except MlxdError as error:
        return error
    return None


def _show_plan(app: App, steps: "Sequence[Step]") -> None:
    from ctl.servicing import plan_page, plan_shape  # noqa: PLC0415

    if app.as_json:
        app.show_json(plan_shape(steps))
    else:
        app.show(*plan_page(steps))


def _show_state(app: App, found: "Service") -> None:
    from ctl.servicing import state_page, state_shape  # noqa: PLC0415

    unavailable = found.manager.unavailable(found.run)
    states, title = found.state(), found.manager.title
    if app.as_json:
        app.show_json(state_shape(title, states, unavailable))
    else:
        app.show(*state_page(title, states, unavailable))
