"""systemd user units: the Linux twins of the launchd agents, a service and a socket each."""

from pathlib import Path
from typing import Final

import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.logs import boot_log
from daemon.wire.paths import Home
from daemon.wire.settings import HttpSettings
from launchd.activation import CONTROL_SOCKET, HTTP_SOCKET
from launchd.agents import Environment, check_port

DAEMON_UNIT: Final = "mlxd"
BRIDGE_UNIT: Final = "mlx-bridge"


class Units(msgspec.Struct, frozen=True, kw_only=True):
    """The two unit files of one program.

    Attributes:
        name: Of both, without ``.service`` and ``.socket``.
    """

    name: str
    service: str
    socket: str


def daemon_units(home: Home, python: Path, environment: Environment) -> Units:
    """The units that run ``mlxd``; arguments and errors as for ``agents.daemon_agent``."""
    listen = ("DirectoryMode=0700", f"ListenStream={_escaped(str(home.control_socket))}")
    kept = (
        # Workers outlive a restart of the daemon, and one that the system ended for want
        # of memory is the daemon's business, not a reason to stop the whole service.
        "KillMode=process",
        "OOMPolicy=continue",
    )
    return Units(
        name=DAEMON_UNIT,
        service=_service(
            DAEMON_UNIT,
            ("daemon", python),
            environment,
            ("Description=mlxd: a pool of MLX models",),
            (*_logging(home.daemon_log), *kept),
        ),
        socket=_socket("Control socket of mlxd", CONTROL_SOCKET, (*listen, "SocketMode=0600")),
    )


def bridge_units(home: Home, python: Path, http: HttpSettings, environment: Environment) -> Units:
    """The units that run ``mlx-bridge``; arguments and errors as for ``agents.bridge_agent``."""
    check_port(http)
    host = http.host.strip("[]")
    host = {"localhost": "127.0.0.1"}.get(host, host)  # systemd takes addresses, not names
    address = f"[{host}]:{http.port}" if ":" in host else f"{host}:{http.port}"
    return Units(
        name=BRIDGE_UNIT,
        service=_service(
            BRIDGE_UNIT,
            ("http_bridge", python),
            environment,
            ("Description=mlxd's HTTP bridge",),
            _logging(home.bridge_log),
        ),
        socket=_socket("HTTP address of mlxd", HTTP_SOCKET, (f"ListenStream={address}",)),
    )


def _logging(log: Path) -> tuple[str, ...]:
    """The program writes ``log``; what it says before, or while it fails, goes beside it."""
    target = f"append:{_escaped(str(boot_log(log)))}"
    return (f"StandardOutput={target}", f"StandardError={target}")


def _service(
    name: str,
    program: tuple[str, Path],
    environment: Environment,
    unit: tuple[str, ...],
    more: tuple[str, ...],
) -> str:
    module, python = program
    if not python.is_absolute():
        raise _bad("python", f"the python of a service must be absolute, not {str(python)!r}")
    if set(str(python)) & set("\"'\\"):  # systemd: "Executable name contains special characters"
        raise _bad("python", f"systemd starts no program with quotes in its path: {python}")
    variables: dict[str, str] = msgspec.to_builtins(environment)
    return _file(
        {
            # Started by hand, too, it shall be given its socket, and not bind one of its own.
            "Unit": [*unit, f"Requires={name}.socket", f"After={name}.socket"],
            "Service": [
                f"ExecStart={_quoted(str(python))} -I -m {module}",
                *(
                    f"Environment={_quoted(f'{name}={value}')}"
                    for name, value in sorted(variables.items())
                ),
                "LimitNOFILE=4096",
                "Restart=on-failure",
                "RestartSec=10",
                "TimeoutStopSec=60",
                "UMask=0077",
                *more,
            ],
            "Install": ["WantedBy=default.target"],
        }
    )


def _socket(description: str, name: str, listen: tuple[str, ...]) -> str:
    return _file(
        {
            "Unit": [f"Description={description}"],
            "Socket": [f"FileDescriptorName={name}", *listen],
            "Install": ["WantedBy=sockets.target"],
        }
    )


def _file(sections: dict[str, list[str]]) -> str:
    return "\n".join(
        "\n".join((f"[{title}]", *directives)) + "\n" for title, directives in sections.items()
    )


def _escaped(text: str) -> str:
    """Without control characters, which would end the line, and with "%" taken literally."""
    if not text.isprintable():
        raise _bad("path", f"{text!r} cannot be written into a unit file")
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a directive (systemd.syntax(7)). "$" stands for itself in an assignment
    and in the path of a program, unlike in a program's arguments.
    """
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _bad(field: str, message: str) -> MlxdError:
    return MlxdError(Code.INVALID_REQUEST, message, field=field)
