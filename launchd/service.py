"""mlxd as a service: what to do to install, run and remove it, and how it stands now.

Nothing here has an effect. Every verb is a list of steps, made from what is there at that
moment, so that asking twice does what is missing and nothing else.
"""

import ipaddress
import socket
from pathlib import Path
from typing import Final

import msgspec

from daemon.wire.errors import Code, MlxdError
from daemon.wire.locks import holder_pid, is_held
from daemon.wire.paths import Home
from daemon.wire.settings import HttpSettings
from launchd.parts import Manager, Part
from launchd.steps import (
    EndHolder,
    MakeFolder,
    Remove,
    RemoveIfEmpty,
    Run,
    Step,
    UntilFree,
    UntilHeld,
    WriteFile,
    last_lines,
)

LOG_LINES_SHOWN: Final = 5
LOG_LINES_READ: Final = 100

STATE_FILES: Final = ("bench.jsonl", "chat_history")
"""What mlxctl keeps in the home's root."""

READY: Final = ('{"event": "daemon.ready"', '{"event":"bridge.listening"')
"""The line on standard output that each program begins with once it serves."""


class PartState(msgspec.Struct, frozen=True, kw_only=True):
    """How one program stands; the four states are independent of each other.

    Attributes:
        installed: Whether its files are there.
        current: Whether they are what this version, with these settings, would write.
        enabled: Whether it starts at login; None where that cannot be told.
        loaded: Whether the service manager listens for it.
        pid: Of the running program, 0 if it does not say; None if it does not run.
        said: The last lines of its boot log, where it should run and does not.
    """

    program: str
    name: str
    installed: bool
    current: bool
    enabled: bool | None
    loaded: bool
    pid: int | None
    files: tuple[str, ...]
    boot_log: str
    said: tuple[str, ...]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """mlxd on one home, as the service manager of this machine runs it.

    Attributes:
        http: Where the bridge should listen; None if config.toml cannot be read. Then the
            service can be looked at, stopped and removed.
    """

    home: Home
    http: HttpSettings | None
    manager: Manager
    parts: tuple[Part, Part]
    run: Run

    def check(self) -> None:
        """See whether the service manager can be asked.

        Raises:
            MlxdError: ``conflict`` with the reason, and what to do.
        """
        if why := self.manager.unavailable(self.run):
            raise MlxdError(Code.CONFLICT, f"{self.manager.title} cannot be used here: {why}")

    @property
    def is_installed(self) -> bool:
        """Whether the files of both programs are there; asks nobody."""
        return all(map(_installed, self.parts))

    def state(self) -> tuple[PartState, ...]:
        """How both programs stand."""
        return tuple(self._state(part) for part in self.parts)

    def install(self) -> list[Step]:
        """From whatever is there to two running programs.

        A daemon that runs outside of the service is told to end first, and so is what runs
        on older files. Models stay in memory if ``home.handover_mark`` is held meanwhile.

        Raises:
            MlxdError: ``conflict`` if another program listens where the bridge should;
                ``invalid_request`` if others could reach it there without a key.
        """
        steps: list[Step] = [MakeFolder(f) for f in (self.home.run_dir, self.home.logs_dir)]
        for part in self.parts:
            steps += self._install(part)
        return steps

    def uninstall(self, *, purge: bool) -> list[Step]:
        """Everything that :meth:`install` made; with ``purge`` all that the programs made.

        Raises:
            MlxdError: ``conflict`` if what is to be purged is in use.
        """
        steps: list[Step] = []
        for part in reversed(self.parts):
            steps += self.manager.disable(part) if _installed(part) else []
            if self._loaded(part):
                steps += [*self.manager.unload(part), UntilFree(part.lock)]
            elif purge and is_held(part.lock):
                raise MlxdError(
                    Code.CONFLICT,
                    f"{part.program} runs outside of the service, on the files that --purge "
                    "removes; end it first",
                )
            steps += [Remove(file) for file in (*part.files, part.boot_log)]
        return [*steps, *self.manager.forget(), *(self._purge() if purge else [])]

    def start(self) -> list[Step]:
        """Load what is not loaded, run what does not run."""
        steps: list[Step] = [MakeFolder(self.home.run_dir)]
        for part in self._installed_parts():
            if self._loaded(part):
                steps += [self.manager.start(part)]
            else:
                steps += [*self._take_over(part), *self.manager.load(part)]
            steps += [self._until_it_runs(part)]
        return steps

    def stop(self) -> list[Step]:
        """End both programs until the next start or login. Models leave memory."""
        return [
            step
            for part in reversed(self._installed_parts())
            if self._loaded(part)
            for step in (*self.manager.unload(part), UntilFree(part.lock))
        ]

    def restart(self) -> list[Step]:
        """Both programs anew, their sockets in place, files written again if they differ."""
        if not all(_current(part) for part in self._installed_parts()):
            return self.install()
        if not all(map(self._loaded, self.parts)):
            return self.start()
        return [
            step
            for part in self.parts
            for step in (*self.manager.restart(part), self._until_it_runs(part))
        ]

    def enable(self) -> list[Step]:
        """Start at login."""
        return [s for part in self._installed_parts() for s in self.manager.enable(part)]

    def disable(self) -> list[Step]:
        """Do not start at login; what runs goes on."""
        return [s for part in self._installed_parts() for s in self.manager.disable(part)]

    def _install(self, part: Part) -> list[Step]:
        steps: list[Step] = []
        loaded, current = self._loaded(part), _current(part)
        if part is self.parts[1] and not current:
            self._check_exposure()
        if loaded and not current:
            steps += self.manager.unload(part)
        if not current:
            steps += [WriteFile(path, content) for path, content in part.files.items()]
        if not (loaded and current):
            steps += [] if loaded else self._take_over(part)
            steps += self.manager.load(part)
        elif not is_held(part.lock):
            steps += [self.manager.start(part)]
        if self.manager.is_enabled(part, self.run) is not True:
            steps += self.manager.enable(part)
        return [*steps, self._until_it_runs(part)]

    def _until_it_runs(self, part: Part) -> UntilHeld:
        return UntilHeld(part.lock, part.boot_log, self.manager.start(part).argv)

    def _take_over(self, part: Part) -> list[Step]:
        """End what runs outside of the service in its place."""
        if part is self.parts[1]:
            self._check_address()
        return [EndHolder(part.lock), UntilFree(part.lock)] if is_held(part.lock) else []

    def _check_exposure(self) -> None:
        """The bridge refuses it as well, but once it runs, and again every ten seconds."""
        assert self.http is not None
        host = self.http.host.strip("[]")
        if not self.http.api_keys and not _is_loopback(host):
            raise MlxdError(
                Code.INVALID_REQUEST,
                f"{host} can be reached by others: set http.api_keys in config.toml, or listen "
                "on 127.0.0.1",
                field="http.api_keys",
            )

    def _check_address(self) -> None:
        """Nobody else may listen where the bridge should: a service manager says it badly."""
        assert self.http is not None
        host = self.http.host.strip("[]")
        try:
            socket.create_server(
                (host, self.http.port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            ).close()
        except OSError as error:
            raise MlxdError(
                Code.CONFLICT,
                f"the bridge cannot listen on {self.http.host}:{self.http.port}: "
                f"{error.strerror}; end the program that does (mlx-bridge started by hand?), or "
                "set another http.port in config.toml",
                field="http.port",
            ) from error

    def _purge(self) -> list[Step]:
        """By name, never a whole MLXD_HOME: people put their own files into folders."""
        home = self.home
        logs = [f for kind in _LOGS for f in sorted(home.logs_dir.glob(kind))]
        gone = [home.config_file, home.events_dir, home.run_dir, home.cache_dir, *logs]
        gone += [home.root / name for name in STATE_FILES]
        folders = (home.logs_dir, home.config_file.parent, home.root)
        return [*map(Remove, gone), *map(RemoveIfEmpty, dict.fromkeys(folders))]

    def _state(self, part: Part) -> PartState:
        loaded, pid = self._loaded(part), holder_pid(part.lock)
        silent = loaded and pid is None
        return PartState(
            program=part.program,
            name=part.name,
            installed=_installed(part),
            current=_current(part) if self.http else _installed(part),
            enabled=_installed(part) and self.manager.is_enabled(part, self.run),
            loaded=loaded,
            pid=pid,
            files=tuple(map(str, part.files)),
            boot_log=str(part.boot_log),
            said=_complaints(part) if silent else (),
        )

    def _loaded(self, part: Part) -> bool:
        return self.manager.is_loaded(part, self.run)

    def _installed_parts(self) -> tuple[Part, ...]:
        if missing := [part.program for part in self.parts if not _installed(part)]:
            raise MlxdError(
                Code.NOT_FOUND,
                f"not installed as a service: {' and '.join(missing)}",
                hint="install it: mlxctl service install",
            )
        return self.parts


_LOGS: Final = ("daemon*.log*", "bridge*.log*", "worker-*.log*")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _complaints(part: Part) -> tuple[str, ...]:
    """What a program said after the last time that it was ready."""
    lines = last_lines(part.boot_log, LOG_LINES_READ)
    ready = [at for at, line in enumerate(lines) if line.startswith(READY)]
    return tuple(lines[ready[-1] + 1 if ready else 0 :][-LOG_LINES_SHOWN:])


def _installed(part: Part) -> bool:
    return all(path.exists() for path in part.files)


def _current(part: Part) -> bool:
    return all(_read(path) == content for path, content in part.files.items())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
