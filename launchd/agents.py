"""LaunchAgents for the daemon and the bridge, with keys that launchd knows and no others.

``plistlib`` writes whatever it is given and launchd ignores what it does not know, so a
misspelt key fails in silence. Here every key is a field of a Struct: a wrong one is a type
error while writing, and refused while reading. Keys and types are those of launchd.plist(5).
"""

import ipaddress
import plistlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.logs import boot_log
from daemon.wire.paths import Home
from daemon.wire.settings import HttpSettings
from launchd.activation import CONTROL_SOCKET, HTTP_SOCKET

DAEMON_LABEL: Final = "org.mlxd.daemon"
BRIDGE_LABEL: Final = "org.mlxd.bridge"

OWNER_ONLY_MODE: Final = 0o600
"""Written as 384: property lists have no octal numbers."""

OWNER_ONLY_UMASK: Final = 0o077
SYSTEM_PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"


class _Dictionary(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="pascal",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """A dictionary of a property list; fields are keys, in launchd's own spelling there."""


class KeepAlive(_Dictionary, frozen=True, kw_only=True):
    """When launchd starts the program again; conditions are joined by "or"."""

    successful_exit: bool
    crashed: bool


class ResourceLimits(_Dictionary, frozen=True, kw_only=True):
    """Only the one limit: ResidentSetSize, for one, caps address space on XNU."""

    number_of_files: int


class Environment(_Dictionary, frozen=True, kw_only=True):
    """All that the program sees; launchd adds HOME, USER, LOGNAME, SHELL and TMPDIR.

    Attributes:
        hf_home: Where the Hugging Face cache is, if not in its usual place; so is the next.
        mlxd_home: The one folder of this installation, if it is not the platform's places.
        xdg_state_home: With the next two: the platform's places, where they were moved.
    """

    path: str = msgspec.field(name="PATH")
    hf_home: str | None = msgspec.field(name="HF_HOME", default=None)
    hf_hub_cache: str | None = msgspec.field(name="HF_HUB_CACHE", default=None)
    mlxd_home: str | None = msgspec.field(name="MLXD_HOME", default=None)
    xdg_state_home: str | None = msgspec.field(name="XDG_STATE_HOME", default=None)
    xdg_config_home: str | None = msgspec.field(name="XDG_CONFIG_HOME", default=None)
    xdg_cache_home: str | None = msgspec.field(name="XDG_CACHE_HOME", default=None)


class PathSocket(_Dictionary, frozen=True, kw_only=True):
    """A Unix socket that launchd binds before the program runs."""

    sock_path_name: str
    sock_path_mode: int


class AddressSocket(_Dictionary, frozen=True, kw_only=True):
    """A TCP socket; without ``SockNodeName`` launchd would bind every interface."""

    sock_node_name: str
    sock_service_name: str
    sock_family: Literal["IPv4", "IPv6"] | None = None


class Sockets(_Dictionary, frozen=True, kw_only=True):
    """The names under which the program asks for its sockets."""

    control: PathSocket | None = msgspec.field(name=CONTROL_SOCKET, default=None)
    http: AddressSocket | None = msgspec.field(name=HTTP_SOCKET, default=None)


class Agent(_Dictionary, frozen=True, kw_only=True):
    """One LaunchAgent.

    Attributes:
        process_type: Interactive: every other type throttles CPU or I/O, and with them
            tokens a second.
        exit_time_out: Seconds from SIGTERM to SIGKILL; launchd's own default is a few.
        throttle_interval: Seconds between two starts, at least.
        abandon_process_group: Workers outlive a restart of the daemon.
    """

    label: str
    program_arguments: tuple[str, ...]
    run_at_load: bool
    keep_alive: KeepAlive
    process_type: Literal["Interactive"]
    exit_time_out: int
    throttle_interval: int
    umask: int
    abandon_process_group: bool
    soft_resource_limits: ResourceLimits
    environment_variables: Environment
    standard_out_path: str
    standard_error_path: str
    sockets: Sockets


def daemon_agent(home: Home, python: Path, environment: Environment) -> Agent:
    """The agent that runs ``mlxd``.

    Args:
        home: Where the daemon keeps its files; its logs folder must exist by the start.
        python: The interpreter of mlxd's own environment.
        environment: As :func:`service_environment` gives it.

    Raises:
        MlxdError: ``invalid_request`` if a path is not absolute, or the socket's too long.
    """
    control = PathSocket(
        sock_path_name=_absolute(home.control_socket, "control socket"),
        sock_path_mode=OWNER_ONLY_MODE,
    )
    return _agent(
        DAEMON_LABEL,
        ("daemon", python),
        environment,
        log=boot_log(home.daemon_log),
        sockets=Sockets(control=control),
        abandon_process_group=True,
    )


def bridge_agent(home: Home, python: Path, http: HttpSettings, environment: Environment) -> Agent:
    """The agent that runs ``mlx-bridge`` at ``http.host`` and ``http.port``.

    Raises:
        MlxdError: ``invalid_request`` if a path is not absolute, or the port is 0.
    """
    check_port(http)
    host = http.host.strip("[]")
    address = AddressSocket(
        sock_node_name=host, sock_service_name=str(http.port), sock_family=_family(host)
    )
    return _agent(
        BRIDGE_LABEL,
        ("http_bridge", python),
        environment,
        log=boot_log(home.bridge_log),
        sockets=Sockets(http=address),
        abandon_process_group=False,
    )


def check_port(http: HttpSettings) -> None:
    """See whether ``mlx-bridge`` can be a service there.

    Raises:
        MlxdError: ``invalid_request`` if the port is 0: the system chooses another each time.
    """
    if http.port == 0:
        hint = "set http.port in config.toml"
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"a service needs a port that clients can know, not 0; {hint}",
            hint=hint,
            field="http.port",
        )


def service_environment(environ: Mapping[str, str], path: str = SYSTEM_PATH) -> Environment:
    """The environment of a service: what moves its files, and nothing else of ``environ``.

    Raises:
        MlxdError: ``invalid_request`` for anything that is not absolute: nothing in a
            service's files is expanded later.
    """
    for folder in path.split(":"):
        _absolute(Path(folder), "PATH")
    moved: dict[str, str] = {}
    for field in msgspec.structs.fields(Environment):
        if field.name != "path" and (value := environ.get(field.encode_name)):
            moved[field.name] = _absolute(Path(value), field.encode_name)
    return Environment(path=path, **moved)


def render(agent: Agent) -> bytes:
    """The property list, XML, keys in alphabetical order: equal agents give equal bytes."""
    return plistlib.dumps(msgspec.to_builtins(agent), sort_keys=True)


def _agent(
    label: str,
    program: tuple[str, Path],
    environment: Environment,
    *,
    log: Path,
    sockets: Sockets,
    abandon_process_group: bool,
) -> Agent:
    module, python = program
    log_file = _absolute(log, "log file")
    return Agent(
        label=label,
        program_arguments=(_absolute(python, "python"), "-I", "-m", module),
        run_at_load=True,
        keep_alive=KeepAlive(successful_exit=False, crashed=True),
        process_type="Interactive",
        exit_time_out=60,
        throttle_interval=10,
        umask=OWNER_ONLY_UMASK,
        abandon_process_group=abandon_process_group,
        soft_resource_limits=ResourceLimits(number_of_files=4096),
        environment_variables=environment,
        standard_out_path=log_file,
        standard_error_path=log_file,
        sockets=sockets,
    )


def _family(host: str) -> Literal["IPv4", "IPv6"] | None:
    """The family of an address; None for a name, which may have both."""
    try:
        return "IPv4" if ipaddress.ip_address(host).version == 4 else "IPv6"
    except ValueError:
        return None


def _absolute(path: Path, what: str) -> str:
    if not path.is_absolute():
        raise MlxdError(
            Code.INVALID_REQUEST,
            f"the {what} of a service must be an absolute path, not {str(path)!r}",
            field=what,
        )
    return str(path)
