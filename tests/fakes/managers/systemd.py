"""systemd's user manager as ``systemctl --user`` shows it, for the units that mlxd writes."""

import shlex
from pathlib import Path
from typing import Final

import anyio.abc

from tests.fakes.managers.jobs import Job, Spec

Answer = tuple[int, str]
OK: Final[Answer] = (0, "")
NOT_ACTIVE: Final = 3
NO_UNIT: Final = 5
THROTTLE_SHARE: Final = 0.02


class Systemd:
    """A user manager: it knows of a unit's file what the last daemon-reload read.

    Attributes:
        session: Whether it runs at all.
    """

    def __init__(self, folder: Path, state: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.session = True
        self.jobs: dict[str, Job] = {}
        self._folder = folder
        self._wants = state
        self._tasks = tasks
        self._read: dict[str, Spec] = {}

    async def ask(self, argv: list[str]) -> Answer:
        assert argv[0] == "--user", "a service of this user"
        if not self.session:
            return 1, "Failed to connect to bus: No medium found"
        verb, *units = [word for word in argv[1:] if word != "--quiet"]
        match verb:
            case "show":
                return 0, "Version=252"
            case "daemon-reload":
                self._reload()
                return OK
            case "reset-failed":
                return OK if all(name in self._read for name in names(units)) else (1, "no unit")
            case "is-active":
                return OK if names(units)[0] in self.jobs else (NOT_ACTIVE, "inactive")
            case "is-enabled":
                return OK if set(units) <= self._enabled() else (1, "disabled")
            case "enable" | "disable":
                return self._enable(set(units), enabled=verb == "enable")
        return await self._running(verb, units)

    async def _running(self, verb: str, units: list[str]) -> Answer:
        for name in names(units):
            if name not in self._read:
                return NO_UNIT, f"Unit {name}.service not found."
            match verb:
                case "start":
                    self._start(name)
                case "stop":
                    both = {f"{name}.socket", f"{name}.service"}
                    assert both <= set(units), "its socket would start it again"
                    if job := self.jobs.pop(name, None):
                        await job.end()
                case "restart":
                    self._start(name)
                    await self.jobs[name].again()
                case _:
                    raise AssertionError(f"systemctl has no verb {verb}")
        return OK

    def _start(self, name: str) -> None:
        if name in self.jobs:
            self.jobs[name].start()
        else:
            self.jobs[name] = Job(self._read[name], None, self._tasks)

    def _reload(self) -> None:
        self._read = {
            path.stem: read_units(path, path.with_suffix(".socket"))
            for path in self._folder.glob("*.service")
        }

    def _enabled(self) -> set[str]:
        return set(self._wants.read_text().split()) if self._wants.exists() else set()

    def _enable(self, units: set[str], *, enabled: bool) -> Answer:
        if missing := [unit for unit in units if not (self._folder / unit).exists()]:
            return 1, f"Failed to enable unit: Unit file {missing[0]} does not exist."
        left = self._enabled() | units if enabled else self._enabled() - units
        self._wants.write_text("\n".join(sorted(left)))
        return OK


def names(units: list[str]) -> list[str]:
    """ "mlxd" for "mlxd.service" and "mlxd.socket"."""
    return list(dict.fromkeys(unit.rpartition(".")[0] for unit in units))


def read_units(service: Path, sock: Path) -> Spec:
    """The directives that matter here; systemd itself reads all of them in another test."""
    found, listening = directives(service), directives(sock)
    assert found["KillMode"] == ["process"] if service.stem == "mlxd" else True
    return Spec(
        name=service.stem,
        argv=tuple(shlex.split(found["ExecStart"][0])),
        env=dict(shlex.split(line)[0].split("=", 1) for line in found["Environment"]),
        sockets={listening["FileDescriptorName"][0]: listening["ListenStream"][0]},
        log=found["StandardError"][0].removeprefix("append:"),
        start_at_load=True,
        kill_group=found.get("KillMode") != ["process"],
        end_s=float(found["TimeoutStopSec"][0]),
        throttle_s=float(found["RestartSec"][0]) * THROTTLE_SHARE,
    )


def directives(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, is_directive, value = line.partition("=")
        if is_directive:
            found.setdefault(name, []).append(value.replace("%%", "%"))
    return found
