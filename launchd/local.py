"""The service of this machine: which service manager it has, and what its files say."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from daemon.wire.errors import Code, MlxdError
from daemon.wire.logs import boot_log
from daemon.wire.paths import Home
from daemon.wire.settings import HttpSettings
from launchd import agents, units
from launchd.launchctl import LaunchAgents, agents_folder
from launchd.parts import Manager, Part
from launchd.service import Service
from launchd.steps import Run
from launchd.systemctl import UserUnits, units_folder


def this_service(
    home: Home,
    http: HttpSettings | None,
    environ: Mapping[str, str],
    python: Path,
    which: Callable[[str], str | None],
    run: Run,
) -> Service:
    """The service of this home and interpreter, with the manager that this machine has.

    Args:
        http: See :class:`Service`.
        which: Finds a program of the system, as :func:`shutil.which` does.

    Raises:
        MlxdError: ``conflict`` without a service manager, or under sudo;
            ``invalid_request`` for paths and ports that a service cannot have.
    """
    if environ.get("SUDO_UID"):
        raise MlxdError(
            Code.CONFLICT, "this is a service of a user, not of root; run it without sudo"
        )
    user_home = Path(environ.get("HOME", ""))
    if not user_home.is_absolute():
        raise MlxdError(Code.INVALID_REQUEST, "HOME is not set; a service needs it", field="HOME")
    environment = agents.service_environment(_expanded(environ, home, user_home))
    if which("launchctl"):
        manager: Manager = LaunchAgents(f"gui/{os.getuid()}")
        parts = _agent_parts(
            home, http or HttpSettings(), python, environment, agents_folder(user_home)
        )
    elif which("systemctl"):
        manager = UserUnits()
        folder = units_folder(environ, user_home)
        parts = _unit_parts(home, http or HttpSettings(), python, environment, folder)
    else:
        raise MlxdError(
            Code.CONFLICT,
            "this machine has neither launchctl nor systemctl; run mlxd and mlx-bridge from the "
            "supervisor that you have",
        )
    return Service(home=home, http=http, manager=manager, parts=parts, run=run)


def _agent_parts(
    home: Home, http: HttpSettings, python: Path, environment: agents.Environment, folder: Path
) -> tuple[Part, Part]:
    def files(agent: agents.Agent) -> dict[Path, bytes]:
        return {folder / f"{agent.label}.plist": agents.render(agent)}

    daemon = agents.daemon_agent(home, python, environment)
    bridge = agents.bridge_agent(home, python, http, environment)
    return (
        _daemon(home, daemon.label, files(daemon)),
        _bridge(home, bridge.label, files(bridge)),
    )


def _unit_parts(
    home: Home, http: HttpSettings, python: Path, environment: agents.Environment, folder: Path
) -> tuple[Part, Part]:
    def files(unit: units.Units) -> dict[Path, bytes]:
        return {
            folder / f"{unit.name}.socket": unit.socket.encode(),
            folder / f"{unit.name}.service": unit.service.encode(),
        }

    daemon = units.daemon_units(home, python, environment)
    bridge = units.bridge_units(home, python, http, environment)
    return (
        _daemon(home, daemon.name, files(daemon)),
        _bridge(home, bridge.name, files(bridge)),
    )


def _daemon(home: Home, name: str, files: dict[Path, bytes]) -> Part:
    return Part(
        program="mlxd",
        name=name,
        files=files,
        lock=home.daemon_lock,
        boot_log=boot_log(home.daemon_log),
    )


def _bridge(home: Home, name: str, files: dict[Path, bytes]) -> Part:
    return Part(
        program="mlx-bridge",
        name=name,
        files=files,
        lock=home.bridge_lock,
        boot_log=boot_log(home.bridge_log),
    )


def _expanded(environ: Mapping[str, str], home: Home, user_home: Path) -> dict[str, str]:
    """``environ`` with "~" spelled out where mlxd itself takes it."""
    given = dict(environ)
    if given.get("MLXD_HOME"):
        given["MLXD_HOME"] = str(home.root)
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        if given.get(name, "").startswith("~/"):
            given[name] = str(user_home / given[name][2:])
    return given
